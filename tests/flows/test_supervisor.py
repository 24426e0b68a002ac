"""Keeping processes alive: order, health, restarts, and an end that leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from flows.supervisor import Part, Supervisor, pause_after

PATIENCE_SECONDS = 60.0


def python(name: str, code: str, **rest) -> Part:
    return Part(name, (sys.executable, "-S", "-c", textwrap.dedent(code)), **rest)


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Running:
    """A supervisor in a thread."""

    def __init__(self, parts, folder: Path) -> None:
        self.said: list[str] = []
        self.ready = threading.Event()
        self.seen: list[bool] = []
        self.supervisor = Supervisor(
            parts,
            folder / "logs",
            self.said.append,
            lambda watched: self.seen.append(all(one.works for one in watched)),
        )
        self.thread = threading.Thread(target=self.supervisor.run, args=(self.ready.set,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.supervisor.stop()
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()

    def __getitem__(self, name):
        return self.supervisor.watched[name]


SLEEPS = "import time; time.sleep(600)"


def test_pauses_grow_and_stay_bounded():
    assert [pause_after(deaths) for deaths in (1, 2, 3, 4, 5, 6, 60)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_part_waits_for_what_it_needs(tmp_path):
    gate = tmp_path / "gate"
    once = python("once", f"import os, sys; sys.exit(not os.path.exists({str(gate)!r}))", once=True)
    with Running([once, python("after", SLEEPS, needs=("once",))], tmp_path) as running:
        wait_for(lambda: running["once"].deaths >= 1)
        assert running["after"].process is None
        gate.touch()
        wait_for(running.ready.is_set)
        assert running["after"].works
        assert running["once"].works
        starts = running["once"].starts
        time.sleep(0.6)
        assert running["once"].starts == starts, "what is done once is not done again"


def test_what_dies_is_started_again_and_its_children_end(tmp_path):
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)
    """
    log = tmp_path / "logs" / "parent.log"
    with Running([python("parent", code)], tmp_path) as running:
        wait_for(lambda: log.exists() and log.read_text().strip())
        first, child = running["parent"].pid, int(log.read_text())
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: running["parent"].starts == 2)
        wait_for(lambda: not alive(child))
        assert "SIGKILL" in running.said[0]
        wait_for(lambda: len(log.read_text().split()) == 2)
        second, child = running["parent"].pid, int(log.read_text().split()[1])
    assert not alive(second)
    wait_for(lambda: not alive(child))  # nothing outlives the supervisor


def test_health_is_asked_for(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gate = tmp_path / "gate"
    code = f"""
        import http.server, os, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.05)
        http.server.HTTPServer(
            ("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler
        ).serve_forever()
    """
    part = python("web", code, health=f"http://127.0.0.1:{port}/")
    with Running([part], tmp_path) as running:
        wait_for(lambda: running["web"].process is not None)
        time.sleep(1.0)
        assert not running["web"].works, "it runs, but does not answer"
        gate.touch()
        wait_for(running.ready.is_set)
        assert running.seen == [False, True], "and whoever looks from outside is told"


def test_a_part_that_ignores_the_polite_request_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.supervisor.GRACE_SECONDS", 0.5)
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(600)
    """
    log = tmp_path / "logs" / "deaf.log"
    with Running([python("deaf", code)], tmp_path) as running:
        wait_for(lambda: log.exists() and "deaf" in log.read_text())
        pid = running["deaf"].pid
    assert not alive(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can")
def test_parts_end_when_the_supervisor_is_killed(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        from flows.supervisor import Part, Supervisor
        part = Part("part", (sys.executable, "-S", "-c", {SLEEPS!r}))
        Supervisor(
            [part], Path({str(tmp_path)!r}), print,
            lambda watched: print(watched[0].pid, flush=True),
        ).run()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(pid))
    process.stdout.close()
