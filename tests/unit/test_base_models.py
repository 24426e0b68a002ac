"""Bundled models: their cards say what is there, and do not decide what a model is."""

import json
import math
import shutil

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from services.artifacts import digest_folder
from services.base_models import BUNDLED, CARD, MEASURED, resolve_model
from services.pretraining.build import BUILDS
from services.pretraining.tokenizer import build_tokenizer


@pytest.mark.parametrize("name", BUILDS)
def test_every_bundled_model_has_a_card_of_what_was_measured(name):
    folder = BUNDLED / name
    card = (folder / CARD).read_text(encoding="utf-8")
    facts = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    assert f"# {name}\n" in card
    for metric, value in facts["measured"].items():
        assert f"| {metric} | {value} |" in card
    with safe_open(folder / "model.safetensors", "pt") as weights:
        held = sum(
            math.prod(weights.get_slice(key).get_shape())
            for key in weights.offset_keys()
            if not key.endswith("e_score_correction_bias")  # moved by rule, not by gradient
        )
    assert facts["build"]["parameters"] == held
    assert (folder / "model.safetensors").stat().st_size <= 4 * 2**20
    assert (folder / "tokenizer.json").read_bytes() == (
        BUNDLED / "tiny-base" / "tokenizer.json"
    ).read_bytes(), "one vocabulary for all"
    made_anew = build_tokenizer().get_vocab()
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == made_anew, "words have moved"


def test_a_card_does_not_decide_the_digest_but_everything_else_does(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED / "tiny-student", folder)
    _, digest = resolve_model(str(folder), tmp_path)
    (folder / CARD).write_text("# another story", encoding="utf-8")
    (folder / MEASURED).unlink(missing_ok=True)
    assert resolve_model(str(folder), tmp_path)[1] == digest
    assert digest_folder(folder) != digest, "an artifact's digest is over all of its files"
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert resolve_model(str(folder), tmp_path)[1] != digest
