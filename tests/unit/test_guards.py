"""Guards: each rule provoked with made-up numbers, and what is done about it in a real run."""

import math
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from services.clock import WorkClock
from services.config import RL
from services.config_guards import Guards
from services.errors import GuardError
from services.training.checkpoints import latest_checkpoint, rollbacks, step_of
from services.training.grpo import LeanGRPOTrainer, train_rl
from services.training.guards import GuardWatch, strongest
from services.types import Verdict
from tests.unit.small_training import (
    RL_SMALL,
    Recorder,
    ScoreAlike,
    ScoreByLength,
    job,
    write_policy,
)

QUIET = {
    "loss": 0.1,
    "entropy/sampled": 1.0,
    "kl": 0.01,
    "length/mean": 100.0,
    "truncated": 0.1,
    "groups/dead_right": 0.1,
    "groups/dead_wrong": 0.1,
    "mismatch/kl": 1e-6,
    "reward/total": 0.5,
}
SHORT = Guards(window=2)


def watched(*steps: dict[str, float], settings: Guards = SHORT) -> list[list[str]]:
    """Names of the guards that trip at each step, after two quiet windows."""
    watch = GuardWatch(settings)
    for _ in range(2 * settings.window):
        assert watch.observe(QUIET) == []
    return [[finding.guard for finding in watch.observe(QUIET | step)] for step in steps]


@pytest.mark.parametrize(
    ("guard", "value"),
    [
        ("entropy", {"entropy/sampled": 0.05}),
        ("entropy", {"entropy/sampled": 8.0}),
        ("kl", {"kl": 3.0}),
        ("length", {"length/mean": 10.0}),
        ("truncation", {"truncated": 0.95}),
        ("dead_right", {"groups/dead_right": 1.0}),
        ("dead_wrong", {"groups/dead_wrong": 1.0}),
        ("mismatch", {"mismatch/kl": 0.2}),
    ],
)
def test_a_guard_trips_once_and_again_after_it_has_cleared(guard, value):
    found = watched(value, value, value, {}, {}, value, value)
    assert [guard] in found[:2], "within a window"
    assert found[2] == found[3] == found[4] == [], "not said again before it has cleared"
    assert [guard] in found[5:]
    assert sum(map(len, found)) == 2


def test_a_number_that_is_not_finite_trips_at_once():
    watch = GuardWatch(SHORT)
    (found,) = watch.observe(QUIET | {"grad_norm": math.nan})
    assert found.guard == "non_finite"
    assert "grad_norm" in found.what
    assert not watch.quiet
    assert watch.observe(QUIET) == []
    assert watch.quiet


def test_truncation_of_a_base_that_always_ran_into_the_limit_is_no_runaway():
    watch = GuardWatch(SHORT)
    for _ in range(8):
        assert watch.observe(QUIET | {"truncated": 0.6}) == []


def measured(*pairs: tuple[float, float]) -> list[str]:
    """Guards that trip over (reward, held-out accuracy) of a step each."""
    watch = GuardWatch(SHORT)
    return [
        finding.guard
        for reward, accuracy in pairs
        for finding in watch.observe(
            QUIET | {"reward/total": reward, "held_out/accuracy": accuracy}
        )
    ]


def test_reward_that_rises_while_held_out_accuracy_falls_is_hacking():
    assert measured((0.4, 0.5), (0.5, 0.6), (0.7, 0.5), (0.8, 0.45)) == ["held_out"]


@pytest.mark.parametrize(
    "pairs",
    [
        [(0.4, 0.5), (0.5, 0.6), (0.7, 0.5), (0.8, 0.6)],
        [(0.4, 0.5), (0.5, 0.6), (0.4, 0.5), (0.4, 0.45)],
        [(0.4, 0.5), (0.5, 0.6), (0.7, 0.58), (0.8, 0.57)],
    ],
    ids=["one bad measurement", "reward falls, too", "less than the drop allowed"],
)
def test_what_is_no_reward_hacking(pairs):
    assert measured(*pairs) == []


def test_policies_apply_by_guard_and_the_strongest_acts():
    settings = Guards(window=2, policy="warn", policies={"kl": "rollback", "length": "off"})
    watch = GuardWatch(settings)
    for _ in range(4):
        watch.observe(QUIET)
    bad = QUIET | {"kl": 9.0, "length/mean": 1.0, "mismatch/kl": 1.0}
    found = watch.observe(bad)
    assert {finding.guard: finding.policy for finding in found} == {
        "kl": "rollback",
        "mismatch": "warn",
    }
    assert strongest(found).guard == "kl"
    assert found[0].value > found[0].bound


def test_a_watch_that_was_stored_goes_on_alike():
    straight, first = GuardWatch(SHORT), GuardWatch(SHORT)
    steps = [QUIET | {"kl": 0.5 * i, "held_out/accuracy": 0.5} for i in range(6)]
    for step in steps[:3]:
        straight.observe(step)
        first.observe(step)
    second = GuardWatch(SHORT)
    second.restore(first.state())
    for step in steps[3:]:
        assert second.observe(step) == straight.observe(step)
    assert second.state() == straight.state()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    torch.set_num_threads(1)
    return write_policy(tmp_path_factory.mktemp("policy"))


def settings_with(guards: dict[str, object], **changes: object) -> RL:
    return RL.model_validate(RL_SMALL.model_dump() | {"guards": guards} | changes)


def test_warn_raises_an_alarm_and_goes_on(policy, tmp_path):
    seen = Recorder()
    settings = settings_with({"window": 1})
    train_rl(job(policy, tmp_path, settings), ScoreAlike(), seen, WorkClock())
    assert [(step, f.guard, f.policy) for step, f in seen.alarms] == [(2, "dead_wrong", "warn")]
    assert len(seen.steps) == 4


def test_pause_keeps_a_checkpoint_and_running_again_goes_on(policy, tmp_path):
    seen = Recorder()
    paused = job(policy, tmp_path, settings_with({"window": 1, "policy": "pause"}, save_every=50))
    with pytest.raises(GuardError, match="no answer is right") as stopped:
        train_rl(paused, ScoreAlike(), seen, WorkClock())
    assert "Run the same command again" in stopped.value.mend
    assert len(seen.steps) == 2
    assert step_of(latest_checkpoint(paused.work)) == 2
    assert not paused.output.exists()
    again = Recorder()
    train_rl(paused, ScoreAlike(), again, WorkClock())
    assert again.started_after == [2]
    assert [m.step for m in again.steps] == [3, 4]
    assert again.alarms == [], "it said so before, and has not cleared since"


def poison(monkeypatch, times: int, at: int) -> None:
    """The loss of a step is not finite; so many times."""
    left = [times]
    compute = LeanGRPOTrainer._compute_loss

    def poisoned(self, model, inputs):
        loss = compute(self, model, inputs)
        if self.state.global_step == at - 1 and left[0]:
            left[0] -= 1
            return loss * math.nan
        return loss

    monkeypatch.setattr(LeanGRPOTrainer, "_compute_loss", poisoned)


def test_a_loss_that_is_not_finite_poisons_no_weight(policy, tmp_path, monkeypatch):
    poison(monkeypatch, 1, at=2)
    seen = Recorder()
    train_rl(job(policy, tmp_path), ScoreByLength(), seen, WorkClock())
    assert [(step, f.guard) for step, f in seen.alarms] == [(2, "non_finite")]
    assert math.isnan(seen.steps[1].values["loss"])
    assert math.isfinite(seen.steps[2].values["loss"])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_rollback_returns_to_the_last_good_checkpoint_with_half_the_rate(
    policy, tmp_path, monkeypatch
):
    poison(monkeypatch, 1, at=4)
    seen = Recorder()
    settings = settings_with({"policy": "rollback"}, steps=6)
    train_rl(job(policy, tmp_path, settings), ScoreByLength(), seen, WorkClock())
    assert seen.started_after == [0, 2]
    assert [m.step for m in seen.steps] == [1, 2, 3, 4, 3, 4, 5, 6]
    rates = [m.values["learning_rate"] for m in seen.steps]
    assert rates == pytest.approx([1e-3] * 4 + [5e-4] * 4)
    first, again = (seen.rollouts[start : start + 12] for start in (24, 48))
    assert [r.problem for r in first] == [r.problem for r in again]
    assert [r.completion for r in first] != [r.completion for r in again], "other samples"


def test_rollbacks_are_bounded_and_then_pause(policy, tmp_path, monkeypatch):
    poison(monkeypatch, 9, at=1)
    seen = Recorder()
    settings = settings_with({"policy": "rollback", "max_rollbacks": 1})
    bound = job(policy, tmp_path, settings)
    with pytest.raises(GuardError, match="after 1 rollbacks already"):
        train_rl(bound, ScoreByLength(), seen, WorkClock())
    assert seen.started_after == [0, 0]
    assert [(r["to"], r["guard"]) for r in rollbacks(bound.work)] == [(0, "non_finite")]


def test_held_out_accuracy_touches_nothing_and_the_best_are_kept(policy, tmp_path):
    """The same weights with and without it; the best policies load from beside the result."""
    plain, measured = Recorder(), Recorder()
    train_rl(job(policy, tmp_path / "a"), ScoreByLength(), plain, WorkClock())
    settings = RL.model_validate(
        RL_SMALL.model_dump()
        | {"eval_every": 1, "eval_problems": 4, "eval_samples": 2, "keep_best": 2}
    )
    train_rl(job(policy, tmp_path / "b", settings), ScoreByLength(), measured, WorkClock())
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    accuracy = {m.step: m.values["held_out/accuracy"] for m in measured.steps}
    for metrics, samples in zip(measured.steps, measured.held_out, strict=True):
        assert [sample.sample for sample in samples] == [0, 1] * (len(samples) // 2)
        right = [sample.score.verdict is Verdict.CORRECT for sample in samples]
        assert metrics.values["held_out/accuracy"] == fmean(right)
        assert 0 <= metrics.values["held_out/cons"] <= 1
    assert plain.held_out == [[]] * len(plain.steps)
    wanted = sorted(accuracy, key=lambda step: (-accuracy[step], step))[:2]
    kept = {int(p.name.removeprefix("step-")) for p in (tmp_path / "b/out/best").iterdir()}
    assert kept == set(wanted)
    for folder in (tmp_path / "b/out/best").iterdir():
        AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
        assert not list(folder.glob("*.pt*")), "no training state"
