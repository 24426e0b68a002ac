"""Retraining by itself: is it due, from which stage, and may the candidate become champion.

    look ──nothing due──► say so, in seconds
      └──due──► write it down ──► the recipe, less what it takes over from the champion's pipeline
                  └──► evaluate beside the champion ──► gate ──► promote, ask or refuse

One runs at a time, by a strict limit of the Prefect server and a lock on this machine. What began
is written down with its recipe, so after a crash the next run goes on from the last checkpoint. A
candidate that a person has to approve waits as a row of the store, and the answer promotes. A run
that a deployment started is suspended meanwhile, so no worker is held: the answer ends it, and it
says what became of the candidate.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from pydantic import BaseModel

from flows.deployments import LIMIT
from flows.environment import home_folder, prepare_environment
from flows.events import CHAMPION_CHANGED, RETRAINING_ENDED, tell
from services import views
from services.approvals import open_approvals
from services.artifacts import only_one
from services.config import Recipe
from services.errors import ArtifactError, R1Error, RegistryError, RetrainError, StoreError
from services.recipes import load_recipe, run_id_of
from services.retraining.decision import (
    Due,
    RetrainPolicy,
    Situation,
    Start,
    Unfinished,
    decide_retraining,
)
from services.retraining.situation import (
    load_retrain_policy,
    look,
    retrain_recipe,
    stored_recipe,
)
from services.store import approvals, retrainings, store_url
from services.store.alarms import Alarm, open_alarms
from services.store.opening import open_engine_to_write
from services.versions import LINE

if TYPE_CHECKING:
    from sqlalchemy import Engine


LEASE_SECONDS: Final = 60.0
"""A retraining whose process is gone holds the limit so long; Prefect's least."""
WAIT_SECONDS: Final = 100.0
"""Longer than such a lease and the round in which the server takes it back."""


ENDS: Final[Mapping[str, retrainings.RetrainState]] = {
    "promoted": "promoted",
    "refused": "refused",
    "waiting": "waiting",
    "failed": "failed",
}
"""How a retraining that was carried out may end, as the store says it."""


class Outcome(BaseModel):
    """What a run of the flow came to."""

    state: Literal[
        "nothing due", "due", "busy", "given up", "promoted", "refused", "waiting", "failed"
    ]
    reasons: list[str]
    """Why it was due, or why not."""
    start: Start | None = None
    run_id: str = ""
    said: str = ""
    """What the gate said, or what went wrong."""

    @property
    def sentence(self) -> str:
        """In one line."""
        reasons = "; ".join(self.reasons)
        if self.start is None:
            return f"{self.state.capitalize()}: {reasons}"
        return f"{self.run_id} ({reasons}): {self.state}. {self.said}"


class Examined(NamedTuple):
    """What would be done now."""

    policy: RetrainPolicy
    recipe: Recipe
    situation: Situation
    due: Due


@flow(name="r1-retrain")
def retrain(force: Start | None = None) -> "State[dict[str, Any]]":
    """Retrain if it is due; ``force`` names the stage to start from whatever the policy says."""
    home = home_folder()
    prepare_environment(home)
    outcome = retrain_if_due(home, force)
    get_run_logger().info(outcome.sentence)
    if outcome.state == "waiting":
        _suspend(home, outcome)
    return Completed(message=outcome.sentence, data=outcome.model_dump(mode="json"))


def _suspend(home: Path, outcome: Outcome) -> None:
    """Suspend this run until the answer, where a deployment started it; no process stays for it."""
    from services.line import open_line

    if not deployment.id or not flow_run.id:
        return
    book = open_approvals(store_url(), open_line(home, store_url()))
    if book.hold(outcome.run_id, flow_run.id) is not None:
        suspend_flow_run()  # does not return: this process ends here


def retrain_if_due(home: Path, force: Start | None = None) -> Outcome:
    """Look, and do what is due, with the lock held.

    Raises:
        R1Error: It cannot be decided, or the retraining ended with an error to be mended.
    """
    from services.line import open_line

    open_approvals(store_url(), open_line(home, store_url())).expire()
    due = examine(home, force).due
    if due.start is None and due.gives_up is None:
        return Outcome(state="nothing due", reasons=list(due.reasons))
    try:
        with the_only_one(home):
            return _carry_out(home, force)
    except RetrainError as error:
        if error.what != BUSY:
            raise
        return Outcome(state="busy", reasons=[BUSY])


BUSY: Final = "another retraining is at work"


def examine(home: Path, force: Start | None = None) -> Examined:
    """Decide without doing anything."""
    from services.line import open_line

    policy = load_retrain_policy(home)
    recipe = load_recipe(policy.recipe, policy.changes)
    engine = open_engine_to_write(store_url())
    try:
        situation = look(engine, open_line(home, store_url()), recipe, home)
    finally:
        engine.dispose()
    due = decide_retraining(situation, policy, force)
    return Examined(policy, recipe, situation, due)


@contextmanager
def the_only_one(home: Path) -> Iterator[None]:
    """Hold the lock of this machine and the limit of the server.

    Raises:
        RetrainError: Somebody else holds one of them.
    """
    from prefect.concurrency.sync import concurrency

    if not PREFECT_API_URL.value():
        _make_limit()  # a server of this process alone, where nobody has deployed anything
    with ExitStack() as held:
        try:
            held.enter_context(only_one(home / "work" / "retraining.lock"))
            # A lease that cannot be renewed must not end a training: the server may be starting
            # anew, and the lock of this machine and the row in the store still hold.
            limit = concurrency(
                LIMIT,
                timeout_seconds=WAIT_SECONDS,
                lease_duration=LEASE_SECONDS,
                strict=True,
                raise_on_lease_renewal_failure=False,
            )
            held.enter_context(limit)
        except (TimeoutError, ArtifactError) as error:
            raise RetrainError(BUSY, "Wait until it is done") from error
        yield


def _make_limit() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)


def _carry_out(home: Path, force: Start | None) -> Outcome:
    """Do what is due now that nobody else can; somebody may have been faster."""
    _, recipe, situation, due = examine(home, force)
    engine = open_engine_to_write(store_url())
    try:
        if due.gives_up is not None:
            given_up = _give_up(engine, due.gives_up, due.reasons)
            if due.start is None:
                return given_up
        if due.start is None:
            return Outcome(state="nothing due", reasons=list(due.reasons))
        if due.resumes is not None:
            number = due.resumes.number
            retrainings.go_on(engine, number)
            chosen = stored_recipe(retrainings.retraining(engine, number).recipe)
        else:
            chosen = retrain_recipe(recipe, due.start, situation, engine, home)
            number = _begin(engine, chosen, situation, due)
        outcome = _train(engine, home, chosen, due)
        retrainings.end(engine, number, ENDS[outcome.state], outcome.said)
    finally:
        engine.dispose()
    said = outcome.model_dump(mode="json")
    tell(RETRAINING_ENDED, LINE, said)
    if outcome.state == "promoted":
        tell(CHAMPION_CHANGED, LINE, said)
    return outcome


def _begin(engine: "Engine", recipe: Recipe, situation: Situation, due: Due) -> int:
    return retrainings.begin(
        engine,
        run_id=run_id_of(recipe),
        start=due.start or "",
        reasons=due.reasons,
        recipe=recipe.model_dump_json(),
        champion=situation.champion.version if situation.champion else None,
        base=situation.base,
        student=situation.student,
    )


def _train(engine: "Engine", home: Path, recipe: Recipe, due: Due) -> Outcome:
    """Run the pipeline; what a user has to mend ends the retraining, a crash leaves it open.

    So does a server that is away, and a champion that somebody changed meanwhile: the next run
    finds what is finished, and decides again.
    """
    from flows.running import run_pipeline

    run_id = run_id_of(recipe)
    outcome = Outcome(state="due", reasons=list(due.reasons), start=due.start, run_id=run_id)
    try:
        run_pipeline(recipe, home=home)
    except (StoreError, RegistryError):
        raise
    except R1Error as error:
        said = f"{error.what}. {error.mend}"
        _alarm("retraining_failed", said, run_id)
        return outcome.model_copy(update={"state": "failed", "said": said})
    candidate = "distill" if due.start == "distill" else "r1"
    decision = next(d for d in views.decisions(engine, run_id) if d.model == candidate)
    waits = any(one.run_id == run_id for one in approvals.requests(engine, "waiting"))
    state = "waiting" if waits else "promoted" if decision.promoted else "refused"
    return outcome.model_copy(update={"state": state, "said": "; ".join(decision.reasons)})


def _give_up(engine: "Engine", what: Unfinished, reasons: Sequence[str]) -> Outcome:
    said = f"{what.run_id} crashed {what.attempts} times"
    retrainings.end(engine, what.number, "failed", said)
    _alarm("retraining_given_up", said, what.run_id)
    return Outcome(state="given up", reasons=list(reasons), run_id=what.run_id, said=said)


def _alarm(name: str, said: str, run_id: str) -> None:
    alarms = open_alarms(store_url())
    try:
        alarms.raise_alarm(Alarm("retrain", name, "warn", said, run_id=run_id))
    finally:
        alarms.close()
