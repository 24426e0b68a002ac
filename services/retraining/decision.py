"""Whether a retraining is due, and from which stage. A pure decision with its reasons.

What asks for one: there is no champion; the base is another one; the champion is old; it regressed;
there are enough new problems; the student is another one. Several occasions at once are one
retraining, from the earliest stage that any of them asks for. What was tried already is no occasion
again: problems are new until a run trained on them, alarms and models count from the last
retraining on. ``zero`` is the whole recipe; what the others take over from the champion's pipeline
is in ``flows.inheritance``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from services.config_base import Count, Natural, Settings, Weight

Start = Literal["zero", "dev2", "r1", "distill"]
"""First stage that is trained anew."""
STARTS: Final[tuple[Start, ...]] = ("zero", "dev2", "r1", "distill")
"""Most work first; each one also does what the later ones do for the line, students aside."""


class RetrainPolicy(Settings):
    """When a retraining is due, and what it runs. ``policies/retraining.toml`` of R1_HOME."""

    recipe: str = "tiny"
    """A bundled recipe, or the path of a .toml file."""
    changes: tuple[str, ...] = ()
    """Changes to it, as ``--set`` takes them."""
    min_new_problems: Natural = 64
    """So many added problems that no run has trained on are an occasion; 0: never."""
    new_problems_start: Start = "r1"
    """Where that one starts."""
    on_regression: Start | Literal[""] = "dev2"
    """Where a retraining starts when the champion raised an alarm; empty: nowhere."""
    on_new_base: bool = True
    """Whether another base is an occasion, for the whole recipe."""
    on_new_student: bool = True
    """Whether another student is an occasion, for distillation."""
    max_age_days: Weight = 30.0
    """A champion older than this is trained anew, from fresh problems of another seed; 0: never."""
    age_start: Start = "zero"
    """Where that one starts."""
    max_attempts: Count = 3
    """A retraining that crashed so often is given up, and says so by an alarm."""


class Champion(NamedTuple):
    """The model that a retraining tries to better."""

    version: int
    run_id: str
    """The pipeline that made it; empty if it is not known here."""
    since: datetime


class Unfinished(NamedTuple):
    """A retraining that began and did not end."""

    number: int
    run_id: str
    start: Start
    attempts: int


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the decision rests on."""

    now: datetime
    champion: Champion | None
    new_problems: int
    """Added problems that no run has trained on."""
    alarms: tuple[str, ...]
    """What the champion's monitor said since it became champion or was last retrained."""
    base: str
    """Digest of the base that the recipe names today."""
    known_base: str
    """Digest of the base of the last retraining, or of the champion; empty if there is none."""
    student: str
    known_student: str
    continues: frozenset[str]
    """Stages that the files of the champion's pipeline allow to start from."""
    unfinished: Unfinished | None = None
    waiting: str = ""
    """A candidate that waits for approval; empty if there is none."""


class Occasion(NamedTuple):
    """One thing that asks for a retraining."""

    start: Start
    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done."""

    start: Start | None
    """None: nothing."""
    reasons: tuple[str, ...]
    """Why; or, of each thing that could have been an occasion, why it is none."""
    resumes: Unfinished | None = None
    """The retraining that goes on, instead of a new one."""
    gives_up: Unfinished | None = None
    """The retraining that crashed too often."""


def decide_retraining(
    situation: Situation, policy: RetrainPolicy, force: Start | None = None
) -> Due:
    """Decide whether a retraining is due, and from where.

    Args:
        situation: What is known.
        policy: What is asked for.
        force: Start from here whatever the policy says; what is unfinished goes first.
    """
    open_one = situation.unfinished
    if open_one is not None and open_one.attempts < policy.max_attempts:
        times = f"{open_one.attempts} of {policy.max_attempts} attempts"
        return Due(open_one.start, (f"{open_one.run_id} did not end ({times})",), resumes=open_one)
    if force is not None:
        return _possible(situation, Occasion(force, "asked for by hand"), gives_up=open_one)
    if open_one is not None:
        why = f"{open_one.run_id} crashed {open_one.attempts} times and is given up"
        return Due(None, (why,), gives_up=open_one)
    if situation.waiting:
        return Due(None, (f"{situation.waiting} waits for approval",))
    occasions, quiet = _occasions(situation, policy)
    if not occasions:
        return Due(None, tuple(quiet))
    first = min(occasions, key=lambda occasion: STARTS.index(occasion.start))
    found = _possible(situation, first)
    others = tuple(o.reason for o in occasions if o is not first)
    return Due(found.start, found.reasons + others)


def _possible(situation: Situation, occasion: Occasion, gives_up: Unfinished | None = None) -> Due:
    """A start that the champion's pipeline does not allow becomes the whole recipe."""
    start, reason = occasion
    if start == "zero" or start in situation.continues:
        return Due(start, (reason,), gives_up=gives_up)
    missing = f"from zero, because the champion's pipeline lacks what {start} goes on from"
    return Due("zero", (reason, missing), gives_up=gives_up)


def _occasions(
    situation: Situation, policy: RetrainPolicy
) -> tuple[Sequence[Occasion], Sequence[str]]:
    """What asks for a retraining; and why the rest does not."""
    champion = situation.champion
    if champion is None:
        return [Occasion("zero", "there is no champion yet")], []
    age = situation.now - champion.since
    days = age / timedelta(days=1)
    alarms = "; ".join(situation.alarms)
    asked: list[tuple[bool, Start | None, str, str]] = [
        (
            bool(situation.known_base) and situation.base != situation.known_base,
            "zero" if policy.on_new_base else None,
            f"the base is another one ({situation.base[:12]})",
            "the base is the same",
        ),
        (
            days > policy.max_age_days > 0,
            policy.age_start if policy.max_age_days else None,
            f"the champion is {days:.0f} days old, more than {policy.max_age_days:g}",
            f"the champion is {days:.1f} of {policy.max_age_days:g} days old",
        ),
        (
            bool(situation.alarms),
            policy.on_regression or None,
            f"the champion regressed: {alarms}",
            "the champion raised no alarm",
        ),
        (
            situation.new_problems >= policy.min_new_problems > 0,
            policy.new_problems_start if policy.min_new_problems else None,
            f"{situation.new_problems} new problems, at least {policy.min_new_problems}",
            f"{situation.new_problems} of {policy.min_new_problems} new problems",
        ),
        (
            bool(situation.known_student) and situation.student != situation.known_student,
            "distill" if policy.on_new_student else None,
            f"the student is another one ({situation.student[:12]})",
            "the student is the same",
        ),
    ]
    occasions = [Occasion(start, why) for is_so, start, why, _ in asked if is_so and start]
    quiet = [why_not for is_so, start, _, why_not in asked if start and not is_so]
    return occasions, quiet
