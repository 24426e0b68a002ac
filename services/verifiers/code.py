r"""Code: does the program pass its tests? Runs in ``services.sandbox``, nowhere else.

The reference is a JSON object in the form of APPS and TACO:

- ``{"inputs": ["1 2\n"], "outputs": ["3\n"]}``: standard input and output;
- with ``"fn_name": "add"``: ``inputs`` are lists of arguments, ``outputs`` the values to return;
- ``"seconds"`` (default 5) limits one case.

The program is the last fenced block of the answer, or the whole answer without one. Expected
outputs never enter the sandbox, so they cannot be read there. Policy where graders differ:

- Output is compared token by token; tokens with a decimal point may differ by 1e-6, relatively.
- Returned tuples equal lists. A single expected value in a list of one equals the bare value.
- Too slow, too large or crashing is wrong: the program's fault. No sandbox is nobody's verdict: it
  raises, because no later row would fare better.
"""

import json
import math
import re
import secrets
from functools import lru_cache
from typing import Any, Final, NamedTuple

from services.sandbox import Limits, Outcome, run_python
from services.types import Judgement, Problem, Verdict

_FENCED: Final = re.compile(r"```[A-Za-z0-9+]*[ \t]*\n(.*?)```", re.DOTALL)
_MOST_CASES = 100
_TOLERANCE = 1e-6

_HARNESS: Final = """
import io, json, sys
_cases = json.load(sys.stdin)
_out, sys.stdin, sys.stdout = sys.stdout, io.StringIO(""), io.StringIO()
_names = {{"__name__": "solution"}}
exec(compile({source!r}, "solution", "exec"), _names)
_function = _names.get({name!r}) or getattr(_names["Solution"](), {name!r})
for _arguments in _cases:
    print({mark!r} + json.dumps(_function(*_arguments)), file=_out, flush=True)
"""


class _Tests(NamedTuple):
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    function: str
    seconds: float


def verify(problem: Problem, answer: str) -> Judgement:
    """Run the program of an answer on the cases of the reference, up to the first that fails.

    Raises:
        SandboxError: There is no sandbox on this machine.
    """
    try:
        tests = _read_tests(problem.gold)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return Judgement(Verdict.UNSCORABLE, f"the reference holds no tests: {error!r}"[:300])
    source = read_program(answer)
    if not source.strip():
        return Judgement(Verdict.WRONG, "no program is given")
    fault = _call(source, tests) if tests.function else _feed(source, tests)
    if fault is not None:
        return Judgement(Verdict.WRONG, fault)
    return Judgement(Verdict.CORRECT, f"passes {len(tests.inputs)} cases")


def read_program(answer: str) -> str:
    """The last fenced block of an answer, or all of it."""
    blocks = _FENCED.findall(answer)
    return str(blocks[-1]) if blocks else answer


@lru_cache(maxsize=64)
def _read_tests(gold: str) -> _Tests:
    value = json.loads(gold)
    inputs, outputs = tuple(value["inputs"]), tuple(value["outputs"])
    if not inputs or len(inputs) != len(outputs) or len(inputs) > _MOST_CASES:
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    function = str(value.get("fn_name") or "")
    wanted = list if function else str
    if not all(isinstance(item, wanted) for item in inputs):
        raise TypeError(f"every input must be a {wanted.__name__}")
    if not function and not all(isinstance(item, str) for item in outputs):
        raise TypeError("every output must be a str")
    return _Tests(inputs, outputs, function, float(value.get("seconds", 5.0)))


def _feed(source: str, tests: _Tests) -> str | None:
    """What is wrong with a program that reads and prints, or None."""
    limits = Limits(seconds=tests.seconds)
    for number, (given, expected) in enumerate(zip(tests.inputs, tests.outputs, strict=True), 1):
        outcome = run_python(source, stdin=given, limits=limits)
        if fault := _crash(outcome):
            return f"case {number}: {fault}"
        if not same_output(expected, outcome.stdout):
            return f"case {number}: prints {outcome.stdout[:60]!r}, not {expected[:60]!r}"
    return None


def _call(source: str, tests: _Tests) -> str | None:
    """What is wrong with a function, or None. All cases run in one process."""
    mark = secrets.token_hex(16)
    harness = _HARNESS.format(source=source, name=tests.function, mark=mark)
    limits = Limits(seconds=min(tests.seconds * len(tests.inputs), 60.0))
    outcome = run_python(harness, stdin=json.dumps(tests.inputs), limits=limits)
    lines = [line for line in outcome.stdout.splitlines() if line.startswith(mark)]
    for number, expected in enumerate(tests.outputs, 1):
        if number > len(lines):
            return f"case {number}: {_crash(outcome) or 'returns nothing'}"
        try:
            returned = json.loads(lines[number - 1].removeprefix(mark))
            if returned != expected and [returned] != expected:
                return f"case {number}: returns {returned!r}, not {expected!r}"[:200]
        except (ValueError, RecursionError):
            return f"case {number}: returns what is no value"
    return None


def _crash(outcome: Outcome) -> str | None:
    if outcome.stopped:
        return f"over its limit of {outcome.stopped}"
    if outcome.exit_code:
        last = outcome.stderr.strip().splitlines()[-1:] or [f"exit code {outcome.exit_code}"]
        return last[0][:120]
    return None


def same_output(expected: str, given: str) -> bool:
    """Whether two outputs have the same tokens, decimals compared by value."""
    wanted, got = expected.split(), given.split()
    return len(wanted) == len(got) and all(map(_same_token, wanted, got))


def _same_token(expected: str, given: str) -> bool:
    if expected == given:
        return True
    if "." not in expected:
        return False
    try:
        return math.isclose(float(expected), float(given), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except ValueError:
        return False
