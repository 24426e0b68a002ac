"""Is the champion still what it was? Fresh problems against its own baseline.

The baseline is the first evaluation of the version, the one that its gate saw.

Rule. The two samples are independent (other problems, other random streams), so the difference of a
metric is the mean over levels of (now − baseline), and its variance the sum over levels of both
sides' s²/n, over the squared number of levels. An alarm is raised when the whole one-sided normal
interval lies beyond the tolerance of the policy: even its friendly end says that the champion is
worse by more than is tolerated. The level is shared among the tests (Bonferroni), so a champion
that did not change raises an alarm in at most ``1 − confidence`` of the checks.

Watched: accuracy (pass@1), language consistency, the share of answers outside the format, and mean
length both ways, in shares of the baseline's. Alarms go to the store and to subscribers; nothing
here changes the champion.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING, Final, NamedTuple

from services.artifacts import digest_of
from services.clock import WorkClock
from services.config import Evaluation, Recipe
from services.errors import RegistryError
from services.gates import Answer
from services.policies import Monitoring, load_policy
from services.recipes import recipe_digest, validate_recipe
from services.store import RunState, Store, open_store
from services.store.alarms import Alarm, open_alarms
from services.views import answers, evaluation_ids, open_views, protocol_of, recipe_of

if TYPE_CHECKING:
    from services.evaluation import EvaluationResult
    from services.registry import Registry
    from services.versions import Version

TESTS: Final = 5
"""One-sided tests of one check."""
Answers = Mapping[str, Mapping[str, Answer]]


class Change(NamedTuple):
    """How one metric moved since the baseline."""

    name: str
    """Of the alarm: ``accuracy``, ``language``, ``format``, ``longer`` or ``shorter``."""
    baseline: float
    now: float
    worse_by: float
    """How much worse, in the metric's own unit (length: share of the baseline's)."""
    at_least: float
    """The friendly end of the interval: with confidence it is worse by more than this."""
    tolerance: float
    alarm: bool
    message: str


Measure = Callable[[Path, Recipe, Evaluation], "EvaluationResult"]
"""Evaluates the checkpoint in a folder on a recipe's held-out problems."""


@dataclass(frozen=True, slots=True)
class Report:
    """One check of one champion."""

    model: str
    version: int
    number: int
    """Which check of this champion it is, from 1."""
    run_id: str
    """The run in the store that holds its evaluations."""
    changes: tuple[Change, ...]

    @property
    def alarms(self) -> tuple[Change, ...]:
        """What is worse than the policy tolerates."""
        return tuple(change for change in self.changes if change.alarm)


def compare(baseline: Answers, fresh: Answers, limits: Monitoring) -> list[Change]:
    """Hold fresh answers against the baseline's by the rule above."""
    z = NormalDist().inv_cdf(1.0 - (1.0 - limits.confidence) / TESTS)
    right, language, form, length = (
        _difference(baseline, fresh, metric)
        for metric in ("pass@1", "language/consistency", "format", "length/mean")
    )
    share = 1.0 / max(length.before, 1e-9)
    tests = [
        ("accuracy", "pass@1", right, -1.0, limits.max_accuracy_drop),
        ("language", "language consistency", language, -1.0, limits.max_language_drop),
        ("format", "the share of well-formed answers", form, -1.0, limits.max_format_failures),
        ("longer", "mean length", length, share, limits.max_length_change),
        ("shorter", "mean length", length, -share, limits.max_length_change),
    ]
    return [_change(*test, z) for test in tests]


def recheck(
    home: Path,
    url: str,
    registry: "Registry",
    model: str,
    announce: Callable[[Alarm], None] | None = None,
    measure: Measure | None = None,
) -> Report:
    """Measure the champion on fresh problems, compare, keep the evaluation, raise alarms.

    Args:
        home: State folder, for the policy.
        url: Address of the store.
        registry: Knows the champion.
        model: Registered model.
        announce: Told of each alarm after it was stored (``services.webhooks``).
        measure: Evaluates a checkpoint, by default with ``services.evaluation``.

    Raises:
        RegistryError: There is no champion, or no baseline of it.
    """
    head = registry.head(model)
    if head is None:
        raise RegistryError(f"{model} has no champion to watch", "Run a pipeline: r1 run")
    version = registry.version(model, head.champion)
    limits = load_policy(model, home).monitoring
    recipe, protocol, baseline = _baseline(url, version)
    store = open_store(url)
    run_id = f"monitor-{model}-v{version.number}"
    number = _begin(store, url, run_id, recipe)
    state: RunState = "failed"
    try:
        settings = _fresh_protocol(protocol, limits, run_id, number)
        folder = registry.resolve(f"models:/{model}/{version.number}")
        result = (measure or _measure)(folder, recipe, settings)
        row = f"check {number:04}"
        protocol_now = settings.model_dump(mode="json")
        store.write_evaluation(run_id, row, result.summary, protocol_now, result.samples)
        state = "finished"
    finally:
        store.end_run(run_id, state)
        store.close()
    engine = open_views(url)
    fresh = answers(engine, evaluation_ids(engine, run_id)[row])
    report = Report(model, version.number, number, run_id, tuple(compare(baseline, fresh, limits)))
    _raise(url, report, announce)
    return report


def _measure(checkpoint: Path, recipe: Recipe, settings: Evaluation) -> "EvaluationResult":
    from services.evaluation import measure  # torch takes a second

    return measure(checkpoint, recipe, settings, WorkClock())


class _Difference(NamedTuple):
    before: float
    now: float
    error: float
    """Standard error of now − before; NaN where a level has fewer than two problems."""


def _difference(baseline: Answers, fresh: Answers, metric: str) -> _Difference:
    """Means over the levels that both have, and the standard error of their difference."""
    before, now = (_levels(side.get(metric, {})) for side in (baseline, fresh))
    levels = sorted(before.keys() & now.keys())
    if not levels:
        return _Difference(math.nan, math.nan, math.nan)
    spread = 0.0
    for level in levels:
        for values in (before[level], now[level]):
            spread += variance(values) / len(values) if len(values) > 1 else math.nan
    means = [fmean(fmean(side[level]) for level in levels) for side in (before, now)]
    return _Difference(means[0], means[1], math.sqrt(spread) / len(levels))


def _levels(rows: Mapping[str, Answer]) -> dict[int, list[float]]:
    levels: dict[int, list[float]] = {}
    for answer in rows.values():
        levels.setdefault(answer.level, []).append(answer.value)
    return levels


def _change(
    name: str, what: str, found: _Difference, scale: float, tolerance: float, z: float
) -> Change:
    """One test; what nothing is known of (NaN) raises no alarm."""
    worse_by = (found.now - found.before) * scale
    at_least = worse_by - z * found.error * abs(scale)
    message = (
        f"{what} went from {found.before:.3f} to {found.now:.3f}: worse by {worse_by:.3f}, "
        f"surely by {at_least:.3f}; {tolerance:.3f} is tolerated"
    )
    alarm = at_least > tolerance
    return Change(name, found.before, found.now, worse_by, at_least, tolerance, alarm, message)


def _baseline(url: str, version: "Version") -> tuple[Recipe, dict[str, object], Answers]:
    """The first evaluation of a version that the store still has, and the recipe it was of."""
    engine = open_views(url)
    mend = "Run its pipeline again with --from evaluate"
    recipe = recipe_of(engine, version.tags.get("pipeline", ""))
    for number in version.evaluation_ids:
        protocol = protocol_of(engine, number)
        if protocol is not None and recipe is not None:
            return validate_recipe(json.loads(recipe)), protocol, answers(engine, number)
    raise RegistryError(
        f"version {version.number} of {version.model} has no evaluation in the store", mend
    )


def _begin(store: Store, url: str, run_id: str, recipe: Recipe) -> int:
    """Open the run that holds the checks of a champion; the number of the next one."""
    store.begin_run(
        run_id,
        recipe_name=f"monitor of {recipe.name}",
        recipe_digest=recipe_digest(recipe),
        seed=recipe.seed,
        recipe_json=recipe.model_dump_json(),
    )
    return 1 + len(evaluation_ids(open_views(url), run_id))


def _fresh_protocol(
    protocol: Mapping[str, object], limits: Monitoring, run_id: str, number: int
) -> Evaluation:
    """The baseline's protocol on problems and random streams that no check had before."""
    settings = Evaluation.model_validate(protocol)
    changes = {
        "seed": int(digest_of([run_id, number])[:8], 16),
        "problems_per_level": limits.problems_per_level,
        "samples": limits.samples or settings.samples,
        "general_prompts": 0,
    }
    return settings.model_copy(update=changes)


def _raise(url: str, report: Report, announce: Callable[[Alarm], None] | None) -> None:
    if not report.alarms:
        return
    book = open_alarms(url)
    try:
        for change in report.alarms:
            alarm = Alarm(
                "monitor",
                change.name,
                "warn",
                f"{report.model} version {report.version}: {change.message}",
                run_id=report.run_id,
                stage=report.model,
                step=report.number,
                value=change.at_least,
                bound=change.tolerance,
            )
            book.raise_alarm(alarm)
            if announce is not None:
                announce(alarm)
    finally:
        book.close()
