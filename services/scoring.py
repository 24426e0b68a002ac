"""Scoring many completions: bounded, concurrent, and beside the sampling.

Rules that need microseconds answer in this process. Others (sympy, programs, judges) answer in
child processes with limits of time and memory: a hang or a crash there costs one row, which becomes
unscorable with its reason, and never the run. Submit completions as they finish, collect their
scores when the step ends.

    with ScoringPool() as pool:
        for problem, text in finished:      # while the sampler goes on
            pool.submit(problem, text)
        scores = pool.collect(weights=weights)

Left out: preferences (``services.judging``); they are given to ``collect``.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import services
from services.config import RewardWeights, Shaping
from services.errors import RewardError
from services.prompts import Format, parse
from services.rewards import NO_RULE, NO_SHAPING, score
from services.types import Judgement, Kind, Problem, Score, Verdict
from services.verifiers import UNRULED, math, reasoning_gym, verifier_for

INSTANT: Final[frozenset[Kind]] = frozenset({"countdown", "exact", "choice"})
"""Kinds verified in this process: their work is bounded by the length of the answer."""

SECONDS: Final[dict[Kind, float]] = {
    "math": 5.0,
    reasoning_gym.PREFIX: 10.0,
    "code": 30.0,
    "judge": 45.0,
}
"""Limit of one item by kind, in seconds of processor time; by the clock it is four times that.
A program and a request have limits of their own, which are shorter."""

WORKER: Final = (sys.executable, "-m", "services.verifiers.worker")

_ITEMS_BEFORE_RENEWAL = 5_000
"""A child is replaced after so many items, because sympy's caches only grow."""


_REQUESTS: Final = 8
"""So many judges are asked at a time: their children wait instead of computing."""


class _Job(NamedTuple):
    problem: Problem
    answer: str
    seconds: float
    future: "Future[Judgement]"


class _Submitted(NamedTuple):
    problem: Problem
    completion: str
    judgement: "Future[Judgement]"


class ScoringPool:
    """Verifiers in child processes. Children start when they are first needed.

    Args:
        workers: Child processes that compute; by default one for each core.
        requests: Child processes that ask judges.
        form: The format that the prompts asked for.
        seconds: Limit of every item in place of ``SECONDS``.
        worker: Command that starts a child.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        requests: int = _REQUESTS,
        form: Format = "r1",
        seconds: float | None = None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self._form = form
        self._seconds = seconds
        self._computing = _Crew(workers or os.cpu_count() or 1, worker)
        self._asking = _Crew(requests, worker)
        self._submitted: list[_Submitted] = []

    def __enter__(self) -> Self:
        """The pool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the children; items that nobody has begun are dropped."""
        self.close()

    def close(self) -> None:
        """End the children, whatever they are at; what nobody has begun is cancelled."""
        self._computing.close()
        self._asking.close()

    def judge(self, problem: Problem, completion: str) -> "Future[Judgement]":
        """Start the verification of one completion.

        Raises:
            ProblemError: No verifier has the problem's kind.
        """
        future: Future[Judgement] = Future()
        if problem.kind in UNRULED:
            future.set_result(NO_RULE)
            return future
        verify = verifier_for(problem.kind)
        answer = parse(completion, self._form).answer
        if problem.kind in INSTANT:
            future.set_result(verify(problem, answer))
        elif problem.kind == "math" and (instant := math.verify_plainly(problem, answer)):
            future.set_result(instant)
        else:
            crew = self._asking if problem.kind == "judge" else self._computing
            crew.put(_Job(problem, answer, self._limit(problem.kind), future))
        return future

    def submit(
        self, problem: Problem, completion: str, begun: "Future[Judgement] | None" = None
    ) -> None:
        """Have one completion scored by the next ``collect``; ``begun`` is its verification."""
        future = begun or self.judge(problem, completion)
        self._submitted.append(_Submitted(problem, completion, future))

    def collect(
        self,
        *,
        weights: RewardWeights,
        preferences: Sequence[float | None] | None = None,
        target_language: str | None = None,
        shaping: Shaping = NO_SHAPING,
        tokens: Sequence[int] | None = None,
        max_tokens: int = 0,
    ) -> list[Score]:
        """Scores of everything submitted since the last time, in that order.

        Args:
            weights: Weights of the reward formula.
            preferences: What preference models said, one for each submission.
            target_language: Language of the thoughts; by default each question's.
            shaping: Optional parts of the formula.
            tokens: Length of each submission; for shaping by length.
            max_tokens: Their limit; for shaping by length.

        Raises:
            RewardError: A verifier lacks something, such as a sandbox or a judge.
        """
        submitted, self._submitted = self._submitted, []
        if preferences is None:
            preferences = [None] * len(submitted)
        if tokens is None:
            tokens = [0] * len(submitted)
        return [
            score(
                row.problem,
                row.completion,
                weights=weights,
                judgement=row.judgement.result(),
                preference=preference,
                target_language=target_language,
                form=self._form,
                shaping=shaping,
                tokens=length,
                max_tokens=max_tokens,
            )
            for row, preference, length in zip(submitted, preferences, tokens, strict=True)
        ]

    def score_all(
        self, rows: Iterable[tuple[Problem, str]], *, weights: RewardWeights
    ) -> list[Score]:
        """Submit and collect at once."""
        for problem, completion in rows:
            self.submit(problem, completion)
        return self.collect(weights=weights)

    def _limit(self, kind: Kind) -> float:
        prefix = reasoning_gym.PREFIX
        return self._seconds or SECONDS[prefix if kind.startswith(prefix) else kind]


class _Crew:
    """Children that share a queue of jobs, each fed by a thread; started as jobs come in."""

    def __init__(self, most: int, worker: Sequence[str]) -> None:
        self._most = most
        self._worker = worker
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._children: list[_Child] = []

    def put(self, job: _Job) -> None:
        """Have a job done by whoever is free first."""
        if len(self._threads) < self._most:
            child = _Child(self._worker)
            thread = threading.Thread(target=self._serve, args=(child,), daemon=True)
            self._children.append(child)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """End the children, whatever they are at; what nobody has begun is cancelled."""
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job.future.cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread, child in zip(self._threads, self._children, strict=True):
            while thread.is_alive():  # again and again: it may just be starting its child
                child.kill()
                thread.join(0.05)
        self._threads.clear()
        self._children.clear()

    def _serve(self, child: "_Child") -> None:
        """One thread: feeds one child until there is nothing more to come."""
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(child.ask(job.problem, job.answer, job.seconds))
            except BaseException as error:
                # A future must end, whatever happened; its reader gets the error.
                job.future.set_exception(error)
        child.end()


class _Child:
    """A worker process that is replaced when it ends."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._asked = 0

    def ask(self, problem: Problem, answer: str, seconds: float) -> Judgement:
        """The worker's judgement; unscorable if it dies over it.

        Raises:
            RewardError: The verifier lacks something.
        """
        if self._process is None or self._asked >= _ITEMS_BEFORE_RENEWAL:
            self._start()
        self._asked += 1
        item = {
            "id": problem.id,
            "kind": problem.kind,
            "question": problem.question,
            "gold": problem.gold,
            "language": problem.language,
            "answer": answer,
            "seconds": seconds,
        }
        line = self._exchange(json.dumps(item))
        if not line.endswith("\n"):  # it ended before or within its reply
            code = self.end()
            what = "took too long" if code == 1 else f"died (exit code {code})"
            return Judgement(Verdict.UNSCORABLE, f"the verifier's process {what}")
        reply = json.loads(line)
        if isinstance(reply, dict):
            raise RewardError(*reply["error"])
        return Judgement(Verdict(reply[0]), reply[1])

    def _start(self) -> None:
        self.end()
        root = str(Path(services.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._asked = 0
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            encoding="ascii",
        )

    def _exchange(self, line: str) -> str:
        """One line there and one back; empty if the process has ended."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline()

    def kill(self) -> None:
        """End the process at once; may be called from another thread."""
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> int | None:
        """End the process and give its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        return process.wait()
