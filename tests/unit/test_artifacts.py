"""Finished means visible: folders appear whole or not at all."""

import json

import pytest

from services.artifacts import (
    digest_folder,
    digest_of,
    new_folder,
    read_manifest,
    verify_folder,
    write_atomically,
)
from services.errors import ArtifactError


def test_a_folder_appears_whole_with_its_digest(tmp_path):
    target = tmp_path / "stage-1"
    facts = {"stage": "zero"}
    with new_folder(target, facts) as folder:
        (folder / "weights").write_bytes(b"123")
        assert not target.exists()
        facts["rows"] = 3
    manifest = verify_folder(target)
    assert manifest == {"digest": digest_folder(target), "stage": "zero", "rows": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["stage-1"]


def test_an_error_leaves_the_old_folder_and_no_rest(tmp_path):
    target = tmp_path / "stage-1"
    with new_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), new_folder(target) as folder:
        (folder / "a").write_text(str(1 / 0))
    assert (target / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_damage_is_found(tmp_path):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("one")
    (tmp_path / "x" / "a").write_text("two")
    with pytest.raises(ArtifactError, match="damaged"):
        verify_folder(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot read"):
        read_manifest(tmp_path / "x")
    assert read_manifest(tmp_path / "nowhere") is None


def test_a_folder_that_cannot_be_made_says_how_to_mend_it(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match="R1_HOME"),
        new_folder(tmp_path / "file" / "below"),
    ):
        pass


def test_digests_depend_on_content_alone(tmp_path):
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1})
    for name in ("one", "two"):
        with new_folder(tmp_path / name, {"when": name}) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a").write_text("same")
    assert digest_folder(tmp_path / "one") == digest_folder(tmp_path / "two")


def test_a_text_is_replaced_atomically(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_atomically(path, json.dumps([1]))
    write_atomically(path, json.dumps([2]))
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
