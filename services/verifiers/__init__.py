"""Verifiers: is this the answer? One function for each kind of problem.

Each takes a problem and the text of the answer and says *correct*, *wrong* or *unscorable*. Wrong
is what a model did; unscorable is what we cannot say (a reference that does not parse, a time-out,
a missing judge). Unscorable rows leave the group statistics, so a fault of ours never teaches.

A kind is looked up by name. What needs a heavy library imports it on first use. Left out: where the
answer stands in a completion (``services.prompts``), time limits (``services.scoring``), weights
(``services.rewards``).
"""

from collections.abc import Callable
from typing import Final

from services.errors import ProblemError
from services.types import Judgement, Kind, Problem
from services.verifiers import choice, code, countdown, exact, math, reasoning_gym

Verify = Callable[[Problem, str], Judgement]
"""A problem and the text of the answer to a judgement. Never raises because of an answer; raises
an ``R1Error`` where the machine lacks something (a sandbox, a library, a judge)."""


def _ask_judge(problem: Problem, answer: str) -> Judgement:
    from services.verifiers import judge

    return judge.verify(problem, answer)


VERIFIERS: Final[dict[Kind, Verify]] = {
    "countdown": countdown.verify,
    "math": math.verify,
    "exact": exact.verify,
    "choice": choice.verify,
    "code": code.verify,
    "judge": _ask_judge,
}

UNRULED: Final[frozenset[Kind]] = frozenset({"general"})
"""Kinds that no rule can verify; preference models judge them."""


def verifier_for(kind: Kind) -> Verify:
    """The verifier of a kind: one of ``VERIFIERS`` or ``reasoning_gym/<task>``.

    Raises:
        ProblemError: No verifier has this name.
    """
    if kind in VERIFIERS:
        return VERIFIERS[kind]
    if kind.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.verify
    raise ProblemError(
        f"no verifier is called {kind!r}",
        f"Use one of {', '.join(sorted(VERIFIERS))} or {reasoning_gym.PREFIX}TASK",
    )
