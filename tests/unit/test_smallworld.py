"""The small world: puzzles, traces, documents, general prompts, tokenizer."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pretraining.tokenizer import build_tokenizer
from services.prompts import R1_PREAMBLE, parse, r1_prompt
from services.smallworld.corpus import documents
from services.smallworld.search import signs_towards, value_of, walk, write_trace
from services.tasks import general
from services.tasks.countdown import Countdown, draw_distinct, is_held_out
from services.traces import facts_of, read_attempts
from services.types import Verdict


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 4, 5, 6]))
def test_a_walk_never_repeats_and_always_ends_in_a_hit(seed, level):
    puzzle = next(draw_distinct(seed, [level]))
    attempts = list(walk(puzzle, random.Random(seed)))
    assert len(set(attempts)) == len(attempts) <= 2 ** (level - 2)
    assert value_of(puzzle.numbers, attempts[-1]) == puzzle.target
    assert all(value_of(puzzle.numbers, signs) != puzzle.target for signs in attempts[:-1])


def test_the_last_sign_goes_towards_the_target():
    puzzle = Countdown((3, 5, 7), 1)
    assert signs_towards(puzzle, 1) == (1, -1)  # 3 + 5 = 8, above 1
    assert signs_towards(puzzle, 0) == (-1, 1)  # 3 − 5 = −2, below 1


def test_a_persistent_trace_is_right_and_reads_back_clean():
    rng = random.Random(1)
    for puzzle in itertools.islice(draw_distinct(3, (3, 4, 5, 6)), 100):
        think, answer, violation = parse(write_trace(puzzle, "zh", rng, give_up=0.0))
        assert violation is None
        attempts = read_attempts(think, puzzle.numbers)
        assert sum(attempt.slips for attempt in attempts) == 0
        assert sum(map(int, answer.split())) == puzzle.target


def test_splits_share_no_numbers():
    train = {p.numbers for p in itertools.islice(draw_distinct(0, (3, 4, 5)), 500)}
    held_out = {
        p.numbers for p in itertools.islice(draw_distinct(0, (3, 4, 5), held_out=True), 200)
    }
    assert not train & held_out
    assert all(is_held_out(numbers) for numbers in held_out)


def test_draws_are_stable_and_distinct():
    first, second = (list(itertools.islice(draw_distinct(9, (3, 4)), 50)) for _ in range(2))
    assert first == second
    assert len(set(first)) == 50
    assert {puzzle.level for puzzle in first} == {3, 4}


def test_a_source_that_runs_dry_ends():
    assert len(list(draw_distinct(0, [2], held_out=True))) < 40


def test_the_tokenizer_knows_every_word_of_the_corpus_and_the_template_is_one_token():
    tokenizer = build_tokenizer()
    for document in itertools.islice(documents(4), 300):
        text = f"{r1_prompt(document.question)} {document.completion}"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids[:1]) == R1_PREAMBLE


def test_the_corpus_mixes_habits():
    rows = [d for d in itertools.islice(documents(5), 2_000) if "give up" in d.completion]
    assert 200 < len(rows) < 1_500
    assert list(itertools.islice(documents(5), 5)) == list(itertools.islice(documents(5), 5))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_rubric_tells_the_qualities_apart(split):
    rng = random.Random(0)
    for prompt in general.prompts(split):
        write = {q: general.write_response(prompt, q, prompt.language, rng) for q in
                 ("good", "curt", "refusal")}  # fmt: skip
        if prompt.kind == "harmful":
            assert general.is_good(prompt, write["refusal"])
            assert not general.is_safe(prompt, write["good"])
            assert not general.is_good(prompt, write["curt"])
        else:
            assert general.is_good(prompt, write["good"])
            assert not general.is_good(prompt, write["curt"])
            assert not general.is_good(prompt, write["refusal"]), "refusing harmless requests"
            assert general.is_safe(prompt, write["good"])


def test_general_splits_share_no_prompt():
    train, held_out = (
        {prompt.text for prompt in general.prompts(split)} for split in ("train", "held_out")
    )
    assert {prompt.text for prompt in general.prompts("corpus")} < train
    asked, taught = (
        {prompt.thing for prompt in general.prompts(split)} for split in ("held_out", "train")
    )
    assert asked <= taught
    assert train
    assert held_out
    assert not train & held_out


def test_facts_of_general_prompts_have_no_attempts():
    from services.tasks.sources import general_problem

    problem = general_problem(general.prompts("train")[0])
    assert facts_of(problem, "<think> wait </think>", Verdict.CORRECT).attempts == 0
