"""Two hosts for real: two network namespaces joined by a cable, one training process in each.

The hosts are started by the same command lines as any others; only R1_HOST_COMMAND differs. Skips,
with the reason, where the system gives no namespaces.
"""

import shutil
import socket
import subprocess
import uuid

import pytest
import torch
from safetensors.torch import load_file

from services.clock import WorkClock
from services.config import Engine
from services.launch.job import LaunchedSFT
from services.launch.supervise import run_launched
from services.training.sft import train_sft
from tests.unit.small_training import Recorder, write_policy
from tests.unit.test_launch import sft_job

pytestmark = pytest.mark.slow


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def hosts(monkeypatch):
    """Addresses of two hosts; each is also the name of its namespace."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces here: iproute2 is not installed")
    part = uuid.uuid4().int % 200 + 20
    names = [f"10.87.{part}.1", f"10.87.{part}.2"]
    ends = [f"r1a{part}", f"r1b{part}"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end in zip(names, ends, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "address", "add", f"{name}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        monkeypatch.setenv("R1_HOSTS", ",".join(names))
        # gloo asks which address the host's name has; inside, that is the end of the cable
        device = f"$(ip -o link | grep -o 'r1[ab]{part}')"
        inner = f"export GLOO_SOCKET_IFNAME={device}; {{command}}"
        monkeypatch.setenv("R1_HOST_COMMAND", f'ip netns exec {{host}} sh -c "{inner}"')
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_two_hosts_fine_tune_as_one_process_does(tmp_path, hosts):
    policy = write_policy(tmp_path / "policy")
    one = sft_job(policy, tmp_path / "one", Engine(threads=1, device="cpu"))
    train_sft(one, lambda _: None, WorkClock(), save_every=2)
    seen = Recorder()
    two = sft_job(policy, tmp_path / "two", Engine(threads=1, device="cpu", nodes=2))
    run_launched(LaunchedSFT(two, save_every=2), two.work / "launch", seen, WorkClock())
    assert [metrics.step for metrics in seen.steps] == [1, 2, 3]
    assert socket.gethostname() not in hosts
    first, second = (load_file(x.output / "model.safetensors") for x in (one, two))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=2e-2, rtol=2e-2)
