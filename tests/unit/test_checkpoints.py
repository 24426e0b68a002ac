"""What of a training run is kept on the disk, and how much that will be."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.config import Recipe
from services.config_guards import Guards
from services.errors import ArtifactError
from services.recipes import load_recipe
from services.training import disk
from services.training.checkpoints import (
    MARKER,
    PINNED,
    Retention,
    Whole,
    best_of,
    kept,
    latest_checkpoint,
    roll_back,
    rollbacks,
    step_of,
    way_back,
    whole_checkpoints,
)

BUNDLED = Path(disk.__file__).parents[1] / "bundled"


def checkpoint(step: int, held_out: float | None = None, *, quiet=True, pinned=False) -> Whole:
    return Whole(step, quiet, held_out, pinned)


def test_the_last_the_best_the_pinned_and_a_way_back_stay():
    run = [
        checkpoint(10, 0.5, pinned=True),
        checkpoint(20, 0.9),
        checkpoint(30, 0.9),
        checkpoint(40),
        checkpoint(50, 0.7, quiet=False),
        checkpoint(60, 0.6, quiet=False),
        checkpoint(70, 0.1),
    ]
    assert kept(run, Retention()) == {10, 60, 70}
    assert kept(run, Retention(best=2)) == {10, 20, 30, 60, 70}
    assert [c.step for c in best_of(run, 3)] == [20, 30, 50], "the earlier of equals first"
    assert kept(run, Retention(way_back=15)) == {10, 40, 60, 70}
    assert way_back(run, 69) == 40, "the two between were not quiet"
    assert way_back(run, 5) == 0, "the start of the stage"


def write(work: Path, step: int, *, whole: bool = True, pinned: bool = False) -> None:
    folder = work / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    if whole:
        facts = {"step": step, "quiet": True, "held_out": step / 100}
        (folder / MARKER).write_text(json.dumps(facts))
    if pinned:
        (folder / PINNED).touch()


def test_torn_checkpoints_are_never_chosen_and_removed(tmp_path):
    for step, whole in ((5, True), (10, True), (15, False)):
        write(tmp_path, step, whole=whole)
    assert step_of(latest_checkpoint(tmp_path)) == 10
    assert [c.step for c in whole_checkpoints(tmp_path)] == [5, 10]
    assert not (tmp_path / "checkpoint-15").exists()


def test_rolling_back_forgets_what_came_after_and_remembers_why(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step, pinned=step == 15)
    roll_back(tmp_path, 5, {"guard": "kl"})
    roll_back(tmp_path, 0, {"guard": "entropy"})
    assert latest_checkpoint(tmp_path) is None
    assert rollbacks(tmp_path) == [{"to": 5, "guard": "kl"}, {"to": 0, "guard": "entropy"}]


def small(**changes: object) -> Recipe:
    recipe = load_recipe("tiny")
    return recipe.model_copy(update={"zero": recipe.zero.model_copy(update=changes)})


def test_the_forecast_is_the_fullest_moment():
    stages = [
        disk.StageDisk("zero", 4, 100),
        disk.StageDisk("dev1", 4, 10),
        disk.StageDisk("dev2", 4, 50),
    ]
    assert disk.forecast(stages) == 104
    assert disk.forecast(stages, done={"zero"}) == 4 + 4 + 50
    assert disk.forecast(stages, done={"zero", "dev1", "dev2"}) == 0


@pytest.mark.parametrize(
    ("changes", "kept_bytes", "work"),
    [
        # policy 4 and moments 8 bytes; two checkpoints, and one being written
        ({}, 4, 12 * 3),
        ({"kl_beta": 0.1}, 4, 16 * 3),
        ({"keep_best": 2, "eval_every": 5}, 12, 12 * 5),
        ({"guards": Guards(policy="rollback")}, 4, 12 * 4),
    ],
)
def test_what_a_stage_takes_follows_its_settings(changes, kept_bytes, work):
    zero = disk.disk_by_stage(small(**changes), base=1_000, student=10)[0]
    assert zero == ("zero", kept_bytes * 1_000, work * 1_000)


def test_parameters_are_read_from_the_headers():
    folder = BUNDLED / "tiny-base"
    on_disk = (folder / "model.safetensors").stat().st_size
    assert disk.parameters_of(folder) * 4 == pytest.approx(on_disk, rel=0.01)


def test_a_run_that_does_not_fit_is_refused_with_both_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_500_000_000))
    disk.require_space(tmp_path, 2_500_000_000)
    with pytest.raises(ArtifactError, match=r"up to 7\.0 GB .* 2\.5 GB are free"):
        disk.require_space(tmp_path, 7_000_000_000)
