"""How fast and how steady the reward layer is.

Three measurements on made-up rows:

- *rule rewards*: format, language and countdown of small-world traces of 60 words and more, in one
  process;
- *math*: a warm pool of child processes against a plain loop over math-verify in this process, on
  the same rows: groups of eight different answers to one question, as GRPO samples them. Plain
  numbers (as in GSM8K) and LaTeX (roots, sets, intervals, equations) apart, because the pool
  answers the first without the library;
- *memory*: how much this process grows from the first tenth of many rows to the last, each with
  words that no row before had.

Left out: code and judges, whose time is that of the program or the endpoint.
"""

import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from services.config import RewardWeights
from services.rewards import score
from services.scoring import ScoringPool
from services.smallworld.corpus import question_text
from services.smallworld.search import write_trace
from services.tasks import countdown
from services.types import Problem, Verdict

Row = tuple[Problem, str]

_WEIGHTS = RewardWeights(language=1.0)
_FEWEST_WORDS = 60
_GROUP = 8


@dataclass(frozen=True, slots=True)
class RewardBench:
    """Figures of one machine; rates are completions per second."""

    cores: int
    load: float
    """Load average of the machine before the measurement; above 0, others took their share."""
    rule_rows: int
    rule_words: float
    """Mean length of the rule rows in words."""
    rule_rate: float
    """In one process."""
    rule_rate_per_core: float
    """The same by processor time, whatever else the machine is doing."""
    number_rows: int
    number_rate: float
    number_speedup: float
    """Against the sequential loop over math-verify."""
    latex_rows: int
    latex_rate: float
    latex_speedup: float
    math_speedup: float
    """Over both kinds of rows together."""
    memory_rows: int
    memory_growth_mib: float
    """Resident memory after all rows, less that after a tenth of them."""

    def to_json(self) -> str:
        """All figures as one JSON object."""
        return json.dumps(asdict(self), indent=2)


def bench(
    *, rule_rows: int = 5_000, math_rows: int = 400, memory_rows: int = 100_000, seed: int = 0
) -> RewardBench:
    """Measure the reward layer on this machine; about a minute on two cores."""
    rules = list(islice(puzzle_rows(seed), rule_rows))
    load = os.getloadavg()[0]
    growth = _memory_growth(memory_rows, seed + 1)  # first, before others leave free memory
    rule_seconds, rule_core_seconds = _time_rules(rules)
    rng = random.Random(f"bench:{seed}")
    groups = range(math_rows // _GROUP)
    numbers = [row for _ in groups for row in _number_group(rng)]
    latex = [row for _ in groups for row in _latex_group(rng)]
    number_loop, latex_loop = _time_loop(numbers), _time_loop(latex)
    with ScoringPool() as pool:
        pool.score_all([row for _ in range(8) for row in _latex_group(rng)], weights=_WEIGHTS)
        number_pool, latex_pool = _time_pool(pool, numbers), _time_pool(pool, latex)
    return RewardBench(
        cores=os.cpu_count() or 1,
        load=load,
        rule_rows=len(rules),
        rule_words=sum(len(text.split()) for _, text in rules) / len(rules),
        rule_rate=len(rules) / rule_seconds,
        rule_rate_per_core=len(rules) / rule_core_seconds,
        number_rows=len(numbers),
        number_rate=len(numbers) / number_pool,
        number_speedup=number_loop / number_pool,
        latex_rows=len(latex),
        latex_rate=len(latex) / latex_pool,
        latex_speedup=latex_loop / latex_pool,
        math_speedup=(number_loop + latex_loop) / (number_pool + latex_pool),
        memory_rows=memory_rows,
        memory_growth_mib=growth,
    )


def puzzle_rows(seed: int) -> Iterator[Row]:
    """Long small-world traces with their puzzles; endless, the same for the same seed."""
    rng = random.Random(f"bench:rules:{seed}")
    for number in range(1_000_000_000):
        puzzle = countdown.draw(rng, 6)
        trace = write_trace(puzzle, "en", rng, give_up=0.0, switching=True)
        if len(trace.split()) >= _FEWEST_WORDS:
            gold = {
                "numbers": list(puzzle.numbers),
                "target": puzzle.target,
                "ordered": True,
                "operators": "+-",
            }
            question = question_text(puzzle, "en", rng)
            problem = Problem(f"bench-{number}", "countdown", question, json.dumps(gold), "en", 6)
            yield problem, trace


def _math_row(gold: str, answer: str) -> Row:
    completion = f"<think> so it must be this </think> <answer> \\boxed{{{answer}}} </answer>"
    return Problem("bench", "math", "", gold, "en"), completion


def _number_group(rng: random.Random) -> list[Row]:
    value = rng.randint(-10_000, 10_000_000)
    dress = rng.choice(("{}", "{:,}", "{}.0", "${}"))
    return [_math_row(str(value), dress.format(value + slip)) for slip in range(_GROUP)]


def _latex_group(rng: random.Random) -> list[Row]:
    a, b = (rng.randint(2, 10_000) for _ in range(2))
    gold, answer = rng.choice(
        (
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{b}}}\cdot SLIP"),
            (rf"\{{{a}, {b}\}}", rf"\{{{b}, SLIP\}}"),
            (rf"(-{b}, {a}]", rf"(-{b}, SLIP]"),
            (f"{a}x + {b}", f"{b} + SLIPx"),
            (f"x = {a}", "SLIP = x"),
            (rf"\frac{{{a}\pi}}{{{b}}}", rf"\pi \cdot \frac{{SLIP}}{{{b}}}"),
        )
    )
    return [_math_row(gold, answer.replace("SLIP", str(a + slip))) for slip in range(_GROUP)]


def _time_rules(rows: Sequence[Row]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    started, used = time.perf_counter(), time.process_time()
    for problem, text in rows:
        score(problem, text, weights=_WEIGHTS)
    return time.perf_counter() - started, time.process_time() - used


def _time_loop(rows: Sequence[Row]) -> float:
    """The plain loop: math-verify as its documentation shows it."""
    from math_verify import parse, verify

    parse("$1$")
    started = time.perf_counter()
    for problem, text in rows:
        verify(parse(f"${problem.gold}$"), parse(text))
    return time.perf_counter() - started


def _time_pool(pool: ScoringPool, rows: Sequence[Row]) -> float:
    started = time.perf_counter()
    scores = pool.score_all(rows, weights=_WEIGHTS)
    seconds = time.perf_counter() - started
    assert all(row.verdict is not Verdict.UNSCORABLE for row in scores)
    return seconds


def _memory_growth(rows: int, seed: int) -> float:
    """MiB that this process grows by over the last nine tenths of rows made and scored."""
    stream = _with_new_words(puzzle_rows(seed))
    for problem, text in islice(stream, rows // 10):
        score(problem, text, weights=_WEIGHTS)
    before = _resident_mib()
    for problem, text in islice(stream, rows - rows // 10):
        score(problem, text, weights=_WEIGHTS)
    return _resident_mib() - before


def _with_new_words(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows with words made up for each, as models make them up."""
    for number, (problem, text) in enumerate(rows):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        words = " ".join(f"{start}{letters}" for start in ("ba", "ce", "di", "fo", "gu", "hy"))
        yield problem, text.replace("</think>", f"{words} </think>")


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
