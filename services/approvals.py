"""Approval by a person: what passed the gate waits until somebody says yes or no, or time is up.

No process is held while a request waits: it is a row of the store. A yes promotes at once, on the
champion that the gate compared with; if that changed meanwhile, the promotion is refused and says
so. A process that dies between the yes and the promotion leaves the promotion to the next call of
``expire``, which belongs into every schedule. Where a run of Prefect's is suspended until the
answer, the answer ends it; if the server is away, by the next ``expire``.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from services.errors import LaunchError, RegistryError
from services.orchestrator import Orchestrator, api_url
from services.policies import Approval
from services.store import approvals as table
from services.store.approvals import ApprovalRequest
from services.store.opening import open_engine_to_write

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from services.registry import Registry

POLICY: Final = "policy"
"""Who decides when nobody answers."""
_SEE: Final = "See what waits with: r1 approvals list"


def open_approvals(url: str, registry: "Registry") -> "Approvals":
    """The requests of a store; a yes promotes in ``registry``.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    server = api_url()
    complete = Orchestrator(server).complete if server else None
    return Approvals(open_engine_to_write(url), registry, complete)


class Approvals:
    """Asks, answers, and does what the answer says."""

    def __init__(
        self,
        engine: "Engine",
        registry: "Registry",
        complete: Callable[[str, str], None] | None = None,
    ) -> None:
        """Use the store behind ``engine``; ``complete`` ends a suspended run with a message."""
        self._engine = engine
        self._registry = registry
        self._complete = complete

    def request(
        self,
        *,
        model: str,
        version: int,
        seen: int,
        reasons: Sequence[str],
        terms: Approval,
        run_id: str = "",
        now: datetime | None = None,
    ) -> ApprovalRequest:
        """Ask whether a version may become champion; asked again, the same request comes back.

        Args:
            model: Registered model.
            version: The candidate.
            seen: Sequence of the ledger entry that the gate saw, 0 if there was none.
            reasons: What the gate said.
            terms: How long the request waits, and what happens then; the policy's ``approval``.
            run_id: The pipeline that asks.
            now: For tests.
        """
        asked_at = now or datetime.now(UTC)
        return table.ask(
            self._engine,
            model=model,
            version=version,
            seen=seen,
            run_id=run_id,
            reasons=reasons,
            at_timeout=terms.at_timeout,
            asked_at=asked_at,
            expires_at=asked_at + timedelta(hours=terms.hours),
        )

    def get(self, number: int) -> ApprovalRequest:
        """One request as it is now.

        Raises:
            RegistryError: There is none of this number.
        """
        found = table.request_of(self._engine, number)
        if found is None:
            raise RegistryError(f"there is no request {number}", _SEE)
        return found

    def pending(self, model: str | None = None) -> list[ApprovalRequest]:
        """What waits for an answer, oldest first."""
        return table.requests(self._engine, "waiting", model)

    def all(self, model: str | None = None) -> list[ApprovalRequest]:
        """Every request, oldest first."""
        return table.requests(self._engine, None, model)

    def decide(
        self, number: int, *, approve: bool, who: str, why: str, now: datetime | None = None
    ) -> ApprovalRequest:
        """Answer a request; a yes makes the version champion.

        Raises:
            RegistryError: It does not wait, who or why is missing, or the champion changed
                meanwhile (the yes is kept, the promotion is not made).
        """
        if not who.strip() or not why.strip():
            raise RegistryError("an answer needs who and why", "Say both; they are kept")
        now = now or datetime.now(UTC)
        self.expire(now)
        self.get(number)
        state: table.ApprovalState = "approved" if approve else "rejected"
        if not table.answer(self._engine, number, state, who=who, why=why, at=now):
            found = self.get(number)
            by = f" by {found.who} ({found.why})" if found.who else ""
            raise RegistryError(f"request {number} does not wait: it was {found.state}{by}", _SEE)
        refused = self._promote(self.get(number)) if approve else None
        self._tell_runs()
        if refused is not None:
            raise refused
        return self.get(number)

    def expire(self, now: datetime | None = None) -> list[ApprovalRequest]:
        """End what has waited too long as the policy says, and make promotions that are owed.

        Returns:
            The requests that ended now.
        """
        now = now or datetime.now(UTC)
        ended = []
        for request in self.pending():
            if request.expires_at > now:
                continue
            hours = (request.expires_at - request.asked_at) / timedelta(hours=1)
            why = f"nobody answered within {hours:g} h; the policy says {request.at_timeout}"
            if table.answer(self._engine, request.id, "expired", who=POLICY, why=why, at=now):
                ended.append(request.id)
        for owed in table.unsettled(self._engine):
            self._promote(owed)
        self._tell_runs()
        return [self.get(number) for number in ended]

    def hold(self, run_id: str, flow_run: str) -> ApprovalRequest | None:
        """Note that a run is suspended until the answer to what its pipeline asked.

        Returns:
            The request; None if none waits.
        """
        waiting = next((one for one in self.pending() if one.run_id == run_id), None)
        if waiting is not None:
            table.hold(self._engine, waiting.id, flow_run)
        return waiting

    def _tell_runs(self) -> None:
        """End the runs that were suspended for what has been answered; each is told once."""
        if self._complete is None:
            return
        for request in table.answered_in_suspense(self._engine):
            said = f"{request.state} by {request.who}: {request.why}"
            with suppress(LaunchError):  # the server is away: the next one tells it
                self._complete(request.flow_run, "; ".join(filter(None, (said, request.outcome))))
                table.hold(self._engine, request.id, "")

    def _promote(self, request: ApprovalRequest) -> RegistryError | None:
        """Promote what was said yes to, once; the refusal if there is one."""
        why = f"approved by {request.who}: {request.why}"
        try:
            entry = self._registry.promote(
                request.model, request.version, who=request.who, why=why, seen=request.seen
            )
        except RegistryError as refusal:
            # Somebody who died before writing it down may have done it.
            done = [
                entry
                for entry in self._registry.history(request.model)
                if (entry.sequence, entry.champion) == (request.seen + 1, request.version)
            ]
            if not done:
                table.settle(self._engine, request.id, f"not promoted: {refusal.what}")
                return refusal
            entry = done[0]
        table.settle(self._engine, request.id, f"champion since entry {entry.sequence}")
        return None
