"""Jobs in processes of their own: files, commands, records, failures, two for real."""

import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file

from services.clock import WorkClock
from services.config import SFT, Engine
from services.errors import GuardError
from services.launch import supervise
from services.launch.command import (
    CONFIGURATIONS,
    CrashError,
    LaunchError,
    distributed_type,
    hosts_of,
    launch_words,
    launches,
    on_host,
    shards,
)
from services.launch.job import LaunchedRL, LaunchedSFT, read_job, reward_of, write_job
from services.launch.records import RecordWriter, follow, retell
from services.launch.supervise import refuse, run_launched
from services.recipes import bundled_recipes, load_recipe
from services.training.guards import Finding
from services.training.sft import SFTJob, SFTRow, train_sft
from services.types import (
    Completion,
    EvaluationSample,
    Metrics,
    Problem,
    Rollout,
    Score,
    TraceFacts,
    Verdict,
)
from tests.unit.small_training import Recorder, job, write_policy

TWO = Engine(threads=2, device="cpu", processes=2)
ROLLOUT = Rollout(
    Problem("p", "countdown", "make 3 — 三", "{}", "zh", 3),
    Completion("try 1 + 2", (4, 5, 6), (-0.1, -2.5e-7, -3.0), True),
    Score(Verdict.UNSCORABLE, "why", {"format": 1.0}, None),
    TraceFacts(reflective_words=1, language_share=0.5),
    group=1,
    sample=2,
    advantage=-0.125,
)


def sft_job(policy: Path, where: Path, engine: Engine) -> SFTJob:
    return SFTJob(
        policy=policy,
        output=where / "out",
        work=where / "work",
        settings=SFT(epochs=1, learning_rate=1e-2, batch_size=4, max_length=64),
        engine=engine,
        seed=3,
        rows=[SFTRow("make 3 from 1 2", f"try 1 + {n % 9}") for n in range(12)],
    )


def test_a_job_file_gives_back_what_was_written(tmp_path):
    for launched in (
        LaunchedRL(job(tmp_path / "policy", tmp_path), tmp_path / "preference"),
        LaunchedSFT(sft_job(tmp_path, tmp_path, TWO), save_every=7),
    ):
        write_job(tmp_path / "job.json", launched)
        back = read_job(tmp_path / "job.json")
        assert type(back) is type(launched)
        assert back.job.settings == launched.job.settings
        assert back.job.engine == launched.job.engine
        write_job(tmp_path / "again.json", back)
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "job.json").read_bytes()
        if isinstance(back, LaunchedRL):
            assert [list(part) for part in back.job.schedule] == launched.job.schedule


def test_records_come_back_as_they_were_told(tmp_path):
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    finding = Finding("non_finite", "pause", "the loss is not finite", float("inf"), 0.0)
    writer.resumed(4)
    sample = EvaluationSample(ROLLOUT.problem, 3, ROLLOUT.completion, ROLLOUT.score, ROLLOUT.facts)
    writer.step(Metrics(5, {"loss": 0.1, "kl": float("nan")}), [ROLLOUT], [sample])
    writer.alarm(5, finding)
    writer.worked({"sampling": 2.0})
    seen, clock = Recorder(), WorkClock()
    for record in follow(path, lambda: True):
        retell(record, seen, clock.add)
    assert seen.started_after == [4]
    assert seen.rollouts == [ROLLOUT]
    assert seen.held_out == [[sample]]
    assert seen.steps[0].values["loss"] == 0.1
    assert seen.steps[0].values["kl"] != seen.steps[0].values["kl"]
    assert seen.alarms == [(5, finding)]
    assert clock.seconds == {"sampling": 2.0}
    RecordWriter(None).resumed(1)  # every process but the main one


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"resumed": 1}\n{"resu')
    turns = iter([False, True, True])

    def ended() -> bool:
        over = next(turns)
        if over:
            with path.open("a") as file:
                file.write("" if path.read_text().endswith("}\n") else 'med": 2}\n')
        return over

    assert list(follow(path, ended)) == [{"resumed": 1}, {"resumed": 2}]


@pytest.mark.parametrize("name", bundled_recipes())
def test_accelerate_takes_the_command_of_every_recipe(name, monkeypatch):
    monkeypatch.setattr("accelerate.commands.launch.is_bf16_available", lambda *_: True)
    engine = load_recipe(name).engine
    if not launches(engine):
        engine = engine.model_copy(update={"processes": 2})
    words = launch_words(engine, Path("job.json"), engine.nodes - 1, "10.0.0.1", 29_500)
    assert words[1:3] == ["-m", "accelerate.commands.launch"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words[3:]))
    assert defaults is not None
    assert args.num_processes == engine.nodes * engine.processes
    assert (args.num_machines, args.machine_rank) == (engine.nodes, engine.nodes - 1)
    assert (args.module, args.training_script) == (True, "services.launch")
    kind = distributed_type(engine)
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (
        kind == "MULTI_GPU",
        kind == "FSDP",
        kind == "DEEPSPEED",
    )
    assert args.mixed_precision == ("bf16" if engine.precision == "bfloat16" else "no")


def test_the_configurations_are_what_the_recipe_says_they_are():
    assert {path.stem for path in CONFIGURATIONS.glob("*.yaml")} == {
        "ddp",
        "fsdp2",
        "deepspeed-zero3",
    }
    assert not shards(TWO)
    assert shards(TWO.model_copy(update={"accelerate_config": "fsdp2"}))
    with pytest.raises(LaunchError, match=r"no accelerate configuration 'fsdp'.*ddp"):
        distributed_type(TWO.model_copy(update={"accelerate_config": "fsdp"}))


def test_hosts_are_those_of_the_environment():
    two = Engine(nodes=2)
    assert hosts_of(two, {"R1_HOSTS": "a, b"}) == ["a", "b"]
    with pytest.raises(LaunchError, match=r"engine\.nodes is 2, and R1_HOSTS names 1 hosts"):
        hosts_of(two, {"R1_HOSTS": "a"})
    environment = {"R1_HOME": "/state", "R1_JUDGE_API_KEY": "secret", "OTHER": "1"}
    words = on_host(["python", "-m", "x y"], "gpu7", environment)
    assert words[:3] == ["ssh", "-tt", "gpu7"]
    assert words[3].endswith("&& exec env R1_HOME=/state python -m 'x y'")
    assert shlex.split(words[3])[1] == str(Path.cwd())
    environment["R1_HOST_COMMAND"] = "ip netns exec {host} sh -c {command}"
    assert on_host(["true"], "blue", environment)[:6] == ["ip", "netns", "exec", "blue", "sh", "-c"]
    assert on_host(["true"], "127.0.0.1", environment) == ["true"]


def test_what_cannot_work_is_refused_before_it_starts(tmp_path, monkeypatch):
    launched = LaunchedRL(job(tmp_path, tmp_path))
    spread = TWO.model_copy(update={"accelerate_config": "fsdp2"})
    with pytest.raises(LaunchError, match="vllm-colocate"):
        refuse(LaunchedRL(replace(launched.job, engine=spread)))
    deep = spread.model_copy(update={"accelerate_config": "deepspeed-zero3"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="DeepSpeed is missing"):
        refuse(LaunchedRL(replace(launched.job, engine=deep)))


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces the launcher of a host by a program, which gets its rank and the job's folder."""

    def put(program: str, hosts: int = 1) -> None:
        monkeypatch.setattr(supervise, "hosts_of", lambda _: ["127.0.0.1"] * hosts)
        monkeypatch.setattr(
            supervise,
            "launch_words",
            lambda engine, path, rank, *_: [
                sys.executable, "-c", program, str(rank), str(path.parent),
            ],
        )  # fmt: skip

    return put


def run(tmp_path: Path) -> tuple[Recorder, WorkClock]:
    seen, clock = Recorder(), WorkClock()
    launched = LaunchedSFT(sft_job(tmp_path, tmp_path, TWO), save_every=5)
    run_launched(launched, tmp_path / "launch", seen, clock)
    return seen, clock


TELL = """
import json, sys, time
rank, folder = sys.argv[1:]
def tell(**record):
    with open(folder + "/records.jsonl", "a") as file:
        file.write(json.dumps(record) + "\\n")
"""


def test_a_pipeline_hears_what_its_processes_tell(tmp_path, stand_in):
    stand_in(TELL + "tell(resumed=0)\ntell(step=1, values={'loss': 2.0}, rollouts=[])\n"
             "tell(worked={'training': 3.0})")  # fmt: skip
    seen, clock = run(tmp_path)
    assert seen.started_after == [0]
    assert [metrics.values for metrics in seen.steps] == [{"loss": 2.0}]
    assert clock.seconds == {"training": 3.0}


def test_a_fault_to_mend_is_said_as_the_process_said_it(tmp_path, stand_in):
    said = {"kind": "GuardError", "what": "zero paused", "mend": "Look"}
    stand_in(TELL + f"open(folder + '/error-00000.json', 'w').write({json.dumps(said)!r})\n"
             "raise SystemExit(2)")  # fmt: skip
    with pytest.raises(GuardError, match=r"zero paused\. Look"):
        run(tmp_path)


def test_a_host_that_crashes_ends_the_others(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(supervise, "LAST_WORDS_SECONDS", 0.1)
    stand_in(TELL + "if rank == '1': raise MemoryError('no room')\ntime.sleep(60)", hosts=2)
    started = time.monotonic()
    with pytest.raises(CrashError, match="host 1 ended with code 1: MemoryError: no room"):
        run(tmp_path)
    assert time.monotonic() - started < 50


def test_rows_that_cannot_be_shared_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    launched = sft_job(write_policy(tmp_path / "policy"), tmp_path, Engine(device="cpu"))
    with pytest.raises(Exception, match="a batch of 4 rows cannot be shared by 3 processes"):
        train_sft(launched, lambda _: None, WorkClock(), save_every=5)


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_does(tmp_path):
    policy = write_policy(tmp_path / "policy")
    told: list[Metrics] = []
    one = sft_job(policy, tmp_path / "one", Engine(threads=1, device="cpu"))
    train_sft(one, told.append, WorkClock(), save_every=2)
    seen, clock = Recorder(), WorkClock()
    two = sft_job(policy, tmp_path / "two", TWO)
    run_launched(LaunchedSFT(two, save_every=2), two.work / "launch", seen, clock)
    assert [metrics.step for metrics in seen.steps] == [1, 2, 3]
    assert seen.started_after == [0]
    assert clock.seconds["training"] > 0
    for ours, theirs in zip(told, seen.steps, strict=True):
        assert theirs.values["loss"] == pytest.approx(ours.values["loss"], rel=0.02)
    first, second = (load_file(x.output / "model.safetensors") for x in (one, two))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=2e-2, rtol=2e-2)


def test_the_reward_of_a_launched_stage_is_in_its_format(tmp_path: Path) -> None:
    """A child process reads the format from its job, as the stage itself does."""
    problem = Problem("sum", "exact", "2 + 3 ?", "5", "en")
    boxed = Completion("<think> two and three </think> \\boxed{5}", (1,), (0.0,), False)
    path = tmp_path / "job.json"
    for form, expected in (("boxed", 1.0), ("r1", 0.0)):
        write_job(path, LaunchedRL(replace(job(tmp_path, tmp_path), form=form)))
        read = read_job(path)
        assert isinstance(read, LaunchedRL)
        with reward_of(read) as score:
            [[seen]] = score([problem], [[boxed]])
        assert seen.parts["format"] == expected
