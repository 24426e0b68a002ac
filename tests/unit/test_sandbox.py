"""Hostile programs: none does harm, and all end within their limit.

A program prints HARM where it got what it should not.
"""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from services import sandbox
from services.sandbox import MIB, Limits, SandboxError, run_python

SECRET = "the-rollouts-of-the-store"
LIMITS = Limits(
    seconds=1.0,
    memory_bytes=256 * MIB,
    processes=12,
    file_bytes=4 * MIB,
    disk_bytes=8 * MIB,
    output_bytes=100_000,
)
GRACE_SECONDS = 5.0


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """Skip where the kernel allows no sandbox; a missing program is a failure, not a skip."""
    try:
        sandbox.ensure_available()
    except SandboxError as error:
        if "cannot start" in error.what:
            pytest.skip(f"no namespaces on this machine: {error.what}")
        raise


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home") / "store.db"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def abstract() -> Iterator[str]:
    """The name of a listening Unix socket that lies in no folder."""
    name = f"r1-sandbox-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield name


def harmless(action: str, imports: str = "import os") -> str:
    """A program that says HARM unless the action fails."""
    attempt = f"try:\n    {action}\n    print('HARM')\nexcept Exception as error: print(error)"
    return f"{imports}\n{attempt}"


HOSTILE = {
    "infinite loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\n"
    "try:\n"
    "    for _ in range(1000):\n"
    "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "    print('HARM')\nexcept RuntimeError: print('refused')",
    "memory": "x = []\nwhile True: x.append(bytearray(1000000))",
    "memory by mmap": harmless("mmap.mmap(-1, 2 ** 31)", "import mmap"),
    "memory in many processes": "import os, time\n"
    "for _ in range(6):\n"
    "    if not os.fork():\n"
    "        x = bytearray(90 * 2 ** 20)\n"
    "        time.sleep(60)\n"
    "time.sleep(60)",
    "huge number": "print(len(str(9 ** 9 ** 9)))",
    "one large file": harmless("open('/tmp/a', 'wb').write(bytes(8 * 2 ** 20))"),
    "many files": harmless("[open(f'/tmp/{i}', 'wb').write(bytes(2 ** 20)) for i in range(64)]"),
    "shared memory folder": harmless("open('/dev/shm/a', 'wb').write(b'x')"),
    "memory file": harmless("os.memfd_create('a')"),
    "System V memory": "import ctypes\n"
    "print('HARM' if ctypes.CDLL(None).shmget(0, 2 ** 28, 0o1666) >= 0 else 'refused')",
    "output flood": "while True: print('x' * 10000)",
    "error flood": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "flood without newline": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "network": harmless("socket.create_connection(('127.0.0.1', PORT), 1)", "import socket"),
    "name lookup": harmless("socket.getaddrinfo('example.org', 80)", "import socket"),
    "datagrams": harmless(
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import socket",
    ),
    "raw sockets": harmless("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "import socket"),
    "read the store": harmless("print(open('STORE').read())"),
    "read the store by symlink": harmless(
        "os.symlink('STORE', '/tmp/link'); print(open('/tmp/link').read())"
    ),
    "read the store by hard link": harmless("os.link('STORE', '/tmp/link')"),
    "read the store by the parent's root": harmless(
        "print(open(f'/proc/{os.getppid()}/root' + 'STORE').read())"
    ),
    "list home folders": "import os\n"
    "places = ('/root', '/home', '/mnt', '/var', '/srv')\n"
    "print('HARM' if any(map(os.path.exists, places)) else 'no')",
    "read the environment": "import os\nprint(open('/proc/1/environ').read(), dict(os.environ))",
    "see other processes": "import os\n"
    "pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]\n"
    "print('HARM' if max(pids) > 50 else 'alone')",
    "kill the parent": "import os\n"
    "for pid in (os.getppid(), 1, -1):\n"
    "    for signal in (9, 15, 19):\n"
    "        try: os.kill(pid, signal)\n"
    "        except OSError as error: print(error)",
    "signal games": "import os, signal\n"
    "for number in range(1, 65):\n"
    "    try: signal.signal(number, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\n"
    "os.setsid() if os.getpid() != os.getsid(0) else None\n"
    "while True: pass",
    "daemon": "import os, time\n"
    "if not os.fork():\n"
    "    os.setsid()\n"
    "    if not os.fork(): time.sleep(1000)\n"
    "    os._exit(0)\n"
    "os._exit(0)",
    "trace another process": "import ctypes, os\n"
    "libc = ctypes.CDLL(None)\n"
    "print('HARM' if libc.ptrace(16, os.getppid(), 0, 0) == 0 else 'refused')",
    "new namespaces": "import ctypes\n"
    "print('HARM' if ctypes.CDLL(None).unshare(0x10000000) == 0 else 'refused')",
    "mount": "import ctypes\n"
    "print('HARM' if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 'no')",
    "become root": harmless("os.setuid(0)"),
    "leave by chroot": harmless("os.chroot('/tmp')"),
    "make a device": harmless("os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))"),
    "write the system": harmless("open('/usr/bin/python3', 'ab')"),
    "write the root": harmless("open('/evil', 'w')"),
    "change its own program": harmless("open('/program.py', 'w')"),
    "kernel switches": harmless("open('/proc/sysrq-trigger', 'w').write('b')"),
    "raise its limits": harmless(
        "resource.setrlimit(resource.RLIMIT_AS, (2 ** 40, 2 ** 40))", "import resource"
    ),
    "crash in C": "import ctypes\nctypes.string_at(0)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
    "type into the terminal": "import fcntl, termios\n"
    "try: fcntl.ioctl(0, termios.TIOCSTI, b'x'); print('HARM')\nexcept OSError: print('refused')",
    "abstract socket": harmless(
        "socket.socket(socket.AF_UNIX).connect('\\0ABSTRACT')", "import socket"
    ),
    "inherited descriptors": "import os\n"
    "for number in range(3, 64):\n"
    "    try: os.fstat(number); print('HARM')\n"
    "    except OSError: pass",
    "files without end": "import os\n"
    "for number in range(10 ** 9):\n"
    "    os.close(os.open(f'/tmp/{number}', os.O_CREAT | os.O_WRONLY))",
    "close everything": "import os\nos.closerange(0, 64)\nwhile True: pass",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_does_no_harm_and_ends(
    name: str, store: Path, port: int, abstract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1_SECRET", SECRET)
    source = HOSTILE[name].replace("STORE", str(store)).replace("PORT", str(port))
    source = source.replace("ABSTRACT", abstract)
    outcome = run_python(source, limits=LIMITS)
    written = outcome.stdout + outcome.stderr
    assert "HARM" not in outcome.stdout
    assert SECRET not in written
    assert "SyntaxError" not in outcome.stderr
    assert len(written) <= 2 * LIMITS.output_bytes
    assert outcome.seconds < LIMITS.seconds + GRACE_SECONDS
    assert store.read_text() == SECRET


def test_there_are_enough_hostile_programs() -> None:
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("infinite loop", "time"),
        ("signal games", "time"),
        ("close everything", "time"),
        ("output flood", "output"),
        ("error flood", "output"),
        ("memory in many processes", "memory"),
        ("crash in C", ""),
    ],
)
def test_outcome_says_which_limit_ended_a_program(name: str, stop: str) -> None:
    assert run_python(HOSTILE[name], limits=LIMITS).stopped == stop


def test_nothing_is_left_running() -> None:
    seconds = "1234.5678"
    source = f"""import os
if os.fork() == 0:
    os.setsid()
    os.fork()
os.execv("/bin/sleep", ["sleep", "{seconds}"])"""
    assert run_python(source, limits=Limits(seconds=0.5)).stopped == "time"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # others come and go
            assert seconds.encode() not in path.read_bytes()


def test_program_reads_writes_and_returns_its_exit_code() -> None:
    outcome = run_python("import sys\nprint(input()[::-1])\nsys.exit(3)", stdin="héllo\n")
    assert (outcome.stdout, outcome.exit_code, outcome.stopped) == ("olléh\n", 3, "")


def test_program_that_reads_nothing_takes_any_input() -> None:
    assert run_python("print(1)", stdin="x" * 3_000_000).stdout == "1\n"


def test_large_input_arrives_whole() -> None:
    source = "import sys\nprint(len(sys.stdin.read()))"
    assert run_python(source, stdin="x" * 1_000_000).stdout == "1000000\n"


def test_text_that_is_no_text_is_run_all_the_same() -> None:
    assert run_python("print(1)\n# \ud800", stdin="\ud800").stdout == "1\n"


@pytest.mark.parametrize(("tool", "package"), [("bwrap", "bubblewrap"), ("prlimit", "util-linux")])
def test_missing_tool_is_an_error_that_names_the_package(
    tool: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else real(name))
    sandbox.ensure_available.cache_clear()
    with pytest.raises(SandboxError, match=f"apt-get install {package}"):
        run_python("print('HARM')")
    sandbox.ensure_available.cache_clear()


def test_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox._filter.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(SandboxError, match="vax"):
        run_python("print('HARM')")
    sandbox._filter.cache_clear()


def test_interpreter_is_the_same_minor_version_where_it_can_be() -> None:
    if Path(sys.base_prefix).resolve().is_relative_to("/usr"):
        version = run_python("import sys; print(*sys.version_info[:2])").stdout.split()
        assert version == [str(part) for part in sys.version_info[:2]]
