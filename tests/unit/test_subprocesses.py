"""Processes of ours end with us, also when we are killed, and their children with them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import sys, time
from pathlib import Path
from services.subprocesses import start_guarded
with open(sys.argv[1] + "/log", "wb") as log:
    start_guarded(["sh", "-c", "sleep 300 & echo $! > " + sys.argv[1] + "/child; wait"], log)
time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_parent_takes_its_processes_along(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    child = tmp_path / "child"
    until = time.monotonic() + 60
    while not (child.exists() and child.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.02)
    pid = int(child.read_text())
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)
