"""Retention: what is never touched, what may go, and what is left behind to say so."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from services.artifacts import new_folder
from services.errors import RegistryError
from services.policies import Approval, Retention
from services.retention import plan, remove
from services.store import approvals, open_store, removals
from services.store.opening import open_engine_to_write
from services.versions import REMOVED, Version

ANY = Retention(keep_runs=0, keep_days=0)


class Line:
    """A registry in memory: version 1 is champion of the digest it is given, and so on."""

    def __init__(self, digests, champion=None, previous=None, aliases=None):
        self.rows = {
            number: Version("r1", number, "", "", {"digest": digest, "stage": "r1"})
            for number, digest in enumerate(digests, start=1)
        }
        self.champion, self.previous, self.named = champion, previous, aliases or {}

    def models(self):
        return ["r1"]

    def versions(self, model):
        return list(self.rows.values())

    def head(self, model):
        if self.champion is None:
            return None
        return SimpleNamespace(champion=self.champion, previous=self.previous)

    def aliases(self, model):
        return dict(self.named)

    def tag(self, version, tags):
        self.rows[version.number] = Version("r1", version.number, "", "", {**version.tags, **tags})


@pytest.fixture
def engine(tmp_path):
    return open_engine_to_write(f"sqlite:///{tmp_path / 'store.db'}")


def artifact(home, name, *parents):
    """A finished artifact; its digest."""
    folder = home / "artifacts" / name
    with new_folder(folder, {"stage": name, "parents": list(parents)}) as made:
        (made / "model.safetensors").write_text(name)
    return json.loads((folder / "manifest.json").read_text())["digest"]


def names(rows):
    return sorted(row.path.name for row in rows)


def line(home):
    """zero → cold → dev1, zero → other → r1, and two that nothing was made from."""
    zero = artifact(home, "zero")
    cold = artifact(home, "cold", zero)
    digests = {
        "zero": zero,
        "cold": cold,
        "dev1": artifact(home, "dev1", cold, "base"),
        "r1": artifact(home, "r1", zero),
        "old": artifact(home, "old", zero),
        "lone": artifact(home, "lone"),
    }
    return digests


def test_champion_previous_candidate_pinned_and_their_ancestors_stay(tmp_path, engine):
    made = line(tmp_path)
    registry = Line([made["dev1"], made["r1"]], champion=1)
    found = plan(tmp_path, registry, engine, ANY)
    assert names(found.removable) == ["lone", "old", "r1"]
    why = {row.artifact.path.name: row.why for row in found.kept}
    assert why["dev1"] == "champion of r1"
    assert why["cold"] == why["zero"] == "ancestor of champion of r1"
    registry.champion, registry.previous = 2, 1
    assert names(plan(tmp_path, registry, engine, ANY).removable) == ["lone", "old"]
    other = Line([made["lone"]], aliases={"candidate": 1})
    assert "lone" not in names(plan(tmp_path, other, engine, ANY).removable)
    pin = json.dumps({"who": "ann", "why": "paper", "at": "now"})
    pinned = Line([made["old"]])
    pinned.rows[1] = Version("r1", 1, "", "", {"digest": made["old"], "stage": "r1", "pin": pin})
    kept = plan(tmp_path, pinned, engine, ANY).kept
    assert {row.artifact.path.name for row in kept} == {"old", "zero"}


def test_what_waits_for_approval_stays(tmp_path, engine):
    made = line(tmp_path)
    registry = Line([made["lone"]])
    now = datetime.now(UTC)
    approvals.ask(
        engine, model="r1", version=1, seen=0, run_id="", reasons=[], at_timeout="reject",
        asked_at=now, expires_at=now + timedelta(hours=Approval().hours),
    )  # fmt: skip
    assert "lone" not in names(plan(tmp_path, registry, engine, ANY).removable)


def test_young_artifacts_and_those_of_recent_or_running_runs_stay(tmp_path, engine):
    line(tmp_path)
    registry = Line([])
    assert names(plan(tmp_path, registry, engine, Retention(keep_runs=0)).removable) == []
    later = datetime.now(UTC) + timedelta(days=31)
    everything = plan(tmp_path, registry, engine, Retention(keep_runs=0), later)
    assert len(everything.removable) == 6
    store = open_store(str(engine.url))
    for run, stage in (("first", "old"), ("second", "lone")):
        store.begin_run(run, recipe_name="t", recipe_digest="d", seed=0, recipe_json="{}")
        store.begin_stage(run, stage, kind="rl", key=run, inputs={}, total_steps=1, attributes={})
        path = str(tmp_path / "artifacts" / stage)
        store.end_stage(run, stage, "finished", output_path=path, output_digest="d")
    kept = plan(tmp_path, registry, engine, Retention(keep_runs=0), later)
    assert {"old", "lone"} & set(names(kept.removable)) == set(), "both runs are under way"
    store.end_run("first", "finished")
    store.end_run("second", "finished")
    store.close()
    kept = plan(tmp_path, registry, engine, Retention(keep_runs=1), later)
    assert "lone" not in names(kept.removable)
    assert "old" in names(kept.removable)


def test_planning_touches_nothing_and_removing_says_so(tmp_path, engine):
    made = line(tmp_path)
    registry = Line([made["dev1"], made["old"]], champion=1)
    planned = plan(tmp_path, registry, engine, ANY)
    assert len(list((tmp_path / "artifacts").iterdir())) == 6
    with pytest.raises(RegistryError, match="who and why"):
        remove(planned, registry, engine, who="ann", why="")
    done = remove(planned, registry, engine, who="ann", why="disk is full")
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == [
        "cold", "dev1", "zero",
    ]  # fmt: skip
    assert planned.freed_bytes == sum(row.size_bytes for row in done) > 0
    assert [(row.digest, row.who, row.why) for row in removals.removals(engine)] == [
        (row.digest, "ann", "disk is full") for row in planned.removable
    ]
    assert json.loads(registry.rows[2].tags[REMOVED])["why"] == "disk is full"
    assert REMOVED not in registry.rows[1].tags
    assert registry.rows[2].removed["who"] == "ann"


def test_what_is_under_way_is_not_an_artifact(tmp_path, engine):
    hidden = tmp_path / "artifacts" / ".zero.abc"
    hidden.mkdir(parents=True)
    unfinished = tmp_path / "artifacts" / "dev2"
    unfinished.mkdir()
    assert plan(tmp_path, Line([]), engine, ANY).removable == []
