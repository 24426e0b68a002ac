"""A place to run what a model wrote: bubblewrap, or nothing.

A program gets a fresh set of namespaces with no network, a read-only system without home folders
or the store, one small writable ``/tmp`` in memory, an empty environment and no privileges. It is
limited in wall and processor time, memory, processes, file size and output. What it leaves running
dies with it.

- *Namespaces* (bubblewrap): it sees its own processes only, and cannot make further namespaces.
- *Resource limits* (``prlimit``): set inside, where they count the sandbox's processes alone.
- *A system call filter*: memory outside those limits (memfd, System V), ptrace, bpf, keys.
- *A watch* from outside over time, output and the memory of all processes together.

Run as root, the program becomes *nobody* first: the kernel exempts root from the process limit.
There is no way around: if bubblewrap is missing or the machine allows no user namespaces, this
raises and names the mend. Left out: other languages than Python, and machines other than Linux on
x86-64 and arm64.
"""

import json
import os
import platform
import select
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from services.errors import R1Error

MIB: Final = 1024 * 1024
_NOBODY = 65534
_POLL_SECONDS = 0.05
_MOST_SECONDS_TO_DIE = 10.0


class SandboxError(R1Error, RuntimeError):
    """There is no sandbox on this machine, so nothing is run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0
    """Wall time."""
    memory_bytes: int = 512 * MIB
    """Address space of one process, and resident memory of all together."""
    processes: int = 16
    """Processes and threads."""
    file_bytes: int = 16 * MIB
    """Of one file."""
    disk_bytes: int = 64 * MIB
    """Of all files together; they live in memory."""
    output_bytes: int = 1 * MIB
    """Standard output and error together; what comes after is not read."""


Stop = Literal["", "time", "memory", "output"]


class Outcome(NamedTuple):
    """How a program ended."""

    exit_code: int
    """Negative for a signal."""
    stdout: str
    stderr: str
    stopped: Stop
    """Which watched limit ended it; empty if it ended by itself."""
    seconds: float


def run_python(source: str, *, stdin: str = "", limits: Limits | None = None) -> Outcome:
    """Run a Python program in the sandbox and wait for its end.

    Args:
        source: The program. It runs isolated (``python -I``) with the standard library only.
        stdin: What it reads.
        limits: What it may use.

    Raises:
        SandboxError: bubblewrap is missing or cannot work here.
    """
    ensure_available()
    return _run(source, stdin, limits or Limits())


@cache
def ensure_available() -> None:
    """Check once per process that programs can be run.

    Raises:
        SandboxError: They cannot; the message names what to do.
    """
    for tool, package in (("bwrap", "bubblewrap"), ("prlimit", "util-linux")):
        if shutil.which(tool) is None:
            raise SandboxError(
                f"running code needs {tool}, which is not installed",
                f"Install it with: apt-get install {package}",
            )
    outcome = _run("print(6 * 7)", "", Limits(seconds=20.0))
    if outcome.stdout.strip() != "42":
        raise SandboxError(
            f"bubblewrap cannot start a sandbox here: {outcome.stderr.strip()[:300]}",
            "Allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; in a "
            "container --security-opt seccomp=unconfined)",
        )


def _run(source: str, stdin: str, limits: Limits) -> Outcome:
    started = time.monotonic()
    as_root = os.geteuid() == 0
    reader, writer = os.pipe()
    with _as_file(source.encode("utf-8", "replace")) as program, _as_file(_filter()) as rules:
        process = subprocess.Popen(
            _command(program, rules, writer, limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(program, rules, writer),
            env={},
            cwd="/",
            start_new_session=True,
            user=_NOBODY if as_root else None,
            group=_NOBODY if as_root else None,
            extra_groups=() if as_root else None,
        )
    os.close(writer)
    with process, _everything_in(reader):
        try:
            written, stopped = _converse(process, stdin.encode("utf-8", "replace"), limits)
        finally:
            process.kill()
    out, err = (bytes(part).decode("utf-8", "replace") for part in written)
    return Outcome(process.returncode, out, err, stopped, time.monotonic() - started)


@contextmanager
def _everything_in(reader: int) -> Iterator[None]:
    """End all processes of a sandbox with the block, and wait until they are gone.

    The kernel reports the end of a sandbox's first process after that of all the others.

    Args:
        reader: What bubblewrap says of the sandbox; closed here.
    """
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    first = None
    with suppress(ProcessLookupError):
        first = os.pidfd_open(json.loads(said)["child-pid"]) if said else None
    try:
        yield
    finally:
        if first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(first, signal.SIGKILL)
            select.select([first], [], [], _MOST_SECONDS_TO_DIE)
            os.close(first)


@contextmanager
def _as_file(content: bytes) -> Iterator[int]:
    """A file in memory that a child process can read from its start."""
    handle = os.memfd_create("sandbox")
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(content)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


def _command(program: int, rules: int, info: int, limits: Limits) -> list[str]:
    python, folders = _interpreter()
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user"]
    command += ["--disable-userns", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    command += ["--hostname", "sandbox", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    command += ["--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"]
    for folder in folders:
        command += ["--ro-bind", folder, folder]
    for name in ("bin", "lib", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc"]
    command += ["--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp"]
    command += ["--ro-bind-data", str(program), "/program.py", "--remount-ro", "/"]
    command += ["--chdir", "/tmp", "--seccomp", str(rules), "--info-fd", str(info)]
    command += ["prlimit", f"--as={limits.memory_bytes}", f"--nproc={limits.processes}"]
    command += [f"--fsize={limits.file_bytes}", f"--cpu={int(limits.seconds) + 1}"]
    command += ["--nofile=64", "--core=0", "--stack=8388608", "--msgqueue=0", "--memlock=0"]
    return [*command, python, "-I", "-X", "utf8", "/program.py"]


@cache
def _interpreter() -> tuple[str, tuple[str, ...]]:
    """A Python that *nobody* can read, and the folders it needs."""
    own = Path(sys.base_prefix).resolve()
    name = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if own.is_relative_to("/usr"):
        return str(own / name), ("/usr",)
    if own.is_relative_to("/opt"):
        return str(own / name), ("/usr", str(own))
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    if system is None:
        raise SandboxError(
            f"the sandbox needs a Python outside of home folders; this one is in {own}",
            "Install one with: apt-get install python3",
        )
    return system, ("/usr",)


class _Reading(NamedTuple):
    written: tuple[bytearray, bytearray]
    stopped: Stop


def _converse(process: "subprocess.Popen[bytes]", stdin: bytes, limits: Limits) -> _Reading:
    """Feed a program and read it until it ends or oversteps a limit."""
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        selector.register(_pipe(process.stdout), selectors.EVENT_READ, out)
        selector.register(_pipe(process.stderr), selectors.EVENT_READ, err)
        rest = memoryview(stdin)
        feed = _pipe(process.stdin)
        os.set_blocking(feed.fileno(), False)
        selector.register(feed, selectors.EVENT_WRITE)
        while any(key.data is not None for key in selector.get_map().values()):
            for key, _ in selector.select(_POLL_SECONDS):
                if key.fileobj is feed:
                    rest = _feed(feed, rest)
                    if not rest:
                        selector.unregister(feed)
                        _close(feed)
                elif chunk := os.read(key.fd, 65536):
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
            if len(out) + len(err) > limits.output_bytes:
                del out[limits.output_bytes :], err[limits.output_bytes :]
                return _Reading((out, err), "output")
            if time.monotonic() > deadline:
                return _Reading((out, err), "time")
            if _resident_bytes(process.pid) > limits.memory_bytes:
                return _Reading((out, err), "memory")
        _close(feed)
    try:
        process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return _Reading((out, err), "time")
    return _Reading((out, err), "")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _feed(feed: IO[bytes], rest: memoryview) -> memoryview:
    """Write what fits; nothing is left once the reader has gone."""
    try:
        return rest[os.write(feed.fileno(), rest[:65536]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[len(rest) :]


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return


def _resident_bytes(pid: int) -> int:
    """Memory of a process and all below it, libraries not counted; 0 for those that have gone."""
    total, pending = 0, [pid]
    page = os.sysconf("SC_PAGE_SIZE")
    while pending:
        folder = Path("/proc", str(pending.pop()))
        try:
            _, resident, shared, *_ = (folder / "statm").read_text().split()
            children = (folder / "task" / folder.name / "children").read_text()
        except (OSError, ValueError):
            continue
        total += (int(resident) - int(shared)) * page
        pending += map(int, children.split())
    return total


# Numbers of the calls on x86-64 and arm64.
_DENIED: Final = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "ptrace": (101, 117),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
}
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


@cache
def _filter() -> bytes:
    """The system call filter as a BPF program: refuse other call tables, deny by number, allow.

    Raises:
        SandboxError: The numbers of this machine's calls are not known.
    """
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        raise SandboxError(
            f"the sandbox does not know {platform.system()} on {platform.machine()}",
            "Run problems of the kind code on Linux, x86-64 or arm64",
        )
    column, architecture = _ARCHITECTURES[platform.machine()]
    load, jump_equal, jump_at_least, end = 0x20, 0x15, 0x35, 0x06
    kill, deny, allow = 0x80000000, 0x00050001, 0x7FFF0000
    numbers = [pair[column] for pair in _DENIED.values()]
    program = [
        (load, 0, 0, 4),
        (jump_equal, 1, 0, architecture),
        (end, 0, 0, kill),
        (load, 0, 0, 0),
        (jump_at_least, len(numbers) + 1, 0, 0x40000000),
    ]
    for place, number in enumerate(numbers):
        program.append((jump_equal, len(numbers) - place, 0, number))
    program += [(end, 0, 0, allow), (end, 0, 0, deny)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)
