"""Distillation on own samples: the student comes closer to its teacher, and resumes exactly."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from services.base_models import BUNDLED
from services.clock import WorkClock
from services.config import Engine, Problems
from services.config_adapters import Adapter, OnPolicy
from services.errors import RecipeError
from services.prompts import r1_prompt
from services.sampling import SampleRequest, SamplingSettings
from services.sampling.local import LocalSampler
from services.sampling.random_streams import stream_seed
from services.tasks.sources import training_problems
from services.training.on_policy import OnPolicyJob, train_on_policy
from services.training.policies import load_policy

CPU = torch.device("cpu")
TEACHER = BUNDLED / "tiny-student"
SETTINGS = OnPolicy(
    steps=8, prompts_per_step=8, learning_rate=2e-3, max_new_tokens=24, save_every=3
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """A student that is its teacher with noise in its weights."""
    student = tmp_path_factory.mktemp("student")
    model = load_policy(TEACHER, CPU)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.06)
    model.save_pretrained(student)
    AutoTokenizer.from_pretrained(TEACHER).save_pretrained(student)
    return student, TEACHER


def job(pair, where: Path, settings: OnPolicy = SETTINGS) -> OnPolicyJob:
    problems = training_problems(Problems(), 3, settings.steps * settings.prompts_per_step)
    size = settings.prompts_per_step
    return OnPolicyJob(
        student=pair[0],
        teacher=pair[1],
        output=where / "out",
        work=where / "work",
        settings=settings,
        engine=Engine(threads=1, device="cpu"),
        stream="test",
        schedule=[problems[i : i + size] for i in range(0, len(problems), size)],
    )


def reverse_kl(student: Path, problems, stream: str) -> float:
    """Mean KL of a student to the teacher at the tokens of its own samples, by plain forwards."""
    tokenizer = AutoTokenizer.from_pretrained(TEACHER, padding_side="left")
    models = [load_policy(folder, CPU).eval() for folder in (student, TEACHER)]
    requests = [
        SampleRequest(r1_prompt(problem.question), 1, stream_seed(f"{stream}/{place}"))
        for place, problem in enumerate(problems)
    ]
    total, count = 0.0, 0
    groups = LocalSampler(models[0], tokenizer).sample(requests, SamplingSettings(1.0, 24))
    for request, (completion,) in zip(requests, groups, strict=True):
        asked = tokenizer.encode(request.prompt, add_special_tokens=False)
        ids = torch.tensor([[*asked, *completion.token_ids]])
        with torch.no_grad():
            own, wanted = (
                torch.log_softmax(model(ids).logits[0], -1)[len(asked) - 1 : -1] for model in models
            )
        total += float((own.exp() * (own - wanted)).sum())
        count += len(completion.token_ids)
    return total / count


@pytest.mark.parametrize("lora", [Adapter(), Adapter(rank=8)], ids=["all weights", "adapters"])
def test_the_student_comes_closer_to_its_teacher(pair, tmp_path, lora):
    seen = []
    settings = SETTINGS.model_copy(
        update={"lora": lora, "learning_rate": 7e-3 if lora.rank else 2e-3}
    )
    train_on_policy(job(pair, tmp_path, settings), seen.append, WorkClock())
    assert [metrics.step for metrics in seen] == list(range(1, 9))
    assert {"divergence", "entropy", "length/mean", "truncated"} <= seen[0].values.keys()
    first = job(pair, tmp_path).schedule[0]
    before = reverse_kl(pair[0], first, "test/0")
    assert seen[0].values["divergence"] == pytest.approx(before, rel=1e-4), "TRL's is the plain one"
    assert reverse_kl(tmp_path / "out", first, "test/0") < 0.6 * before


def test_resuming_gives_the_weights_of_an_unbroken_run(pair, tmp_path):
    torch.set_num_threads(1)

    class Killed(Exception):
        pass

    def kill(metrics) -> None:
        if metrics.step == 5:
            raise Killed

    train_on_policy(job(pair, tmp_path / "a"), lambda _: None, WorkClock())
    with pytest.raises(Killed):
        train_on_policy(job(pair, tmp_path / "b"), kill, WorkClock())
    again: list[int] = []
    train_on_policy(job(pair, tmp_path / "b"), lambda m: again.append(m.step), WorkClock())
    assert again == [4, 5, 6, 7, 8]
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_vocabulary_is_refused(pair, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    tokenizer.add_tokens(["elsewhere"])
    other = tmp_path / "other"
    load_policy(pair[1], CPU).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(RecipeError, match="another vocabulary"):
        train_on_policy(job((pair[0], other), tmp_path), lambda _: None, WorkClock())
