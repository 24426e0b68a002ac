"""Preference models: what they are shown, how pairs are made, how they are measured."""

from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from services.config import Engine
from services.pretraining.pretrain import Shape, new_model
from services.pretraining.tokenizer import build_tokenizer
from services.training.preference import (
    Judged,
    PreferenceModel,
    evaluate_preference,
    judged_text,
    make_pairs,
)

SHAPE = Shape(layers=1, width=16, heads=2, intermediate=32)
RESPONSE = "<think> the user greets me . </think> <answer> hello ! how can i help you </answer>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("preference")
    tokenizer = build_tokenizer()
    new_model(SHAPE, tokenizer, seed=1).save_pretrained(path)
    tokenizer.save_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(path)
    return path


def test_helpfulness_sees_the_summary_and_safety_all_of_it():
    assert "greets me" not in judged_text("helpfulness", "hello !", RESPONSE)
    assert judged_text("helpfulness", "hello !", RESPONSE).endswith("hello ! how can i help you")
    assert judged_text("safety", "hello !", RESPONSE).endswith(RESPONSE)


def test_rewards_do_not_depend_on_the_batch(folder):
    items = [("hello !", RESPONSE), ("who are you ?", "<answer> i am r1 </answer>"), ("hi", "")]
    one, all_at_once = (
        PreferenceModel(folder, "safety", Engine(device="cpu", batch_size=size)).rewards(items)
        for size in (1, 512)
    )
    assert one == pytest.approx(all_at_once, abs=1e-5)
    assert len(set(one)) == 3
    assert all(0.0 <= reward <= 1.0 for reward in one)


def test_pairs_are_of_one_question_and_use_a_response_once():
    good, bad = (Judged("q", text, text == "good") for text in ("good", "bad"))
    elsewhere = Judged("other", "bad", False)
    assert make_pairs([good, bad, bad, elsewhere]) == [(good, bad)]


class Fixed(PreferenceModel):
    """Says of each response what it says itself."""

    def __init__(self, aspect) -> None:
        self.aspect = aspect

    def rewards(self, items) -> list[float]:
        return [float(response) for _, response in items]


def test_held_out_accuracy_is_of_pairs_or_of_responses():
    judged = [Judged("q", "0.9", True), Judged("q", "0.6", False), Judged("p", "0.2", True)]
    assert evaluate_preference(Fixed("helpfulness"), judged) == (1.0, 1)
    accuracy, examples = evaluate_preference(Fixed("safety"), judged)
    assert (accuracy, examples) == (pytest.approx(1 / 3), 3)
