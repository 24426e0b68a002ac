"""The one door through which people change things from a page; each change asks for its role.

Pages read through ``services.views`` and ``services.catalog`` and write through here, never past
it, so who may do what is decided in one place and every change carries the name of who made it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services import detached
from services.access import Actor, require
from services.approvals import open_approvals
from services.detached import Launch
from services.errors import LaunchError
from services.line import open_line
from services.orchestrator import FlowRun, Orchestrator
from services.registry import Registry
from services.store.approvals import ApprovalRequest
from services.store.ledger import Promotion
from services.store.ratings import Rating, open_ratings

MAX_NOTE_CHARACTERS: Final = 2000


class Control:
    """Changes to one state folder and its store."""

    def __init__(
        self, home: Path, store_url: str, orchestrator: Orchestrator | None = None
    ) -> None:
        """Change what lies in ``home`` and ``store_url``; runs of a server through its API."""
        self._home = home
        self._url = store_url
        self._orchestrator = orchestrator

    def promote(self, actor: Actor, model: str, version: int, *, why: str, seen: int) -> Promotion:
        """Make a version the champion.

        Args:
            actor: Who asks.
            model: Registered model.
            version: The new champion.
            why: Kept with it.
            seen: Sequence of the last entry that the actor has seen, 0 if there was none.

        Raises:
            AccessError: The role is too low.
            RegistryError: There is no such version, no reason, or somebody else was faster.
        """
        require(actor, "promote")
        return self._registry().promote(
            model, version, who=actor.name, why=why[:MAX_NOTE_CHARACTERS], seen=seen
        )

    def roll_back(self, actor: Actor, model: str, *, why: str) -> Promotion:
        """Bring back the champion before this one.

        Raises:
            AccessError: The role is too low.
            RegistryError: There is none before, no reason, or somebody else was faster.
        """
        require(actor, "roll back")
        return self._registry().rollback(model, who=actor.name, why=why[:MAX_NOTE_CHARACTERS])

    def decide(self, actor: Actor, request: int, *, approve: bool, why: str) -> ApprovalRequest:
        """Answer a request for approval; a yes promotes at once.

        Raises:
            AccessError: The role is too low.
            RegistryError: It does not wait, why is missing, or the champion changed meanwhile.
        """
        require(actor, "decide on approvals")
        return open_approvals(self._url, self._registry()).decide(
            request, approve=approve, who=actor.name, why=why[:MAX_NOTE_CHARACTERS]
        )

    def rate(self, actor: Actor, rating: Rating) -> None:
        """Keep what somebody said of two answers, under their name.

        Raises:
            AccessError: The role is too low.
            StoreError: The store cannot be written.
        """
        require(actor, "rate answers")
        ratings = open_ratings(self._url)
        try:
            ratings.add(rating._replace(who=actor.name, note=rating.note[:MAX_NOTE_CHARACTERS]))
        finally:
            ratings.close()

    def launch(self, actor: Actor, recipe: str, changes: Sequence[str]) -> Launch:
        """Start a recipe as a process of its own on this machine.

        Raises:
            AccessError: The role is too low.
            RecipeError: The recipe or a change is not valid.
            LaunchError: It is at work already, or cannot be started.
        """
        require(actor, "launch runs")
        return detached.start(self._home, recipe, changes, who=actor.name)

    def stop(self, actor: Actor, launch: str) -> Launch:
        """Ask a process that was started here to stop.

        Raises:
            AccessError: The role is too low.
            LaunchError: There is no such launch, or it has ended.
        """
        require(actor, "cancel runs")
        return detached.stop(self._home, launch)

    def launch_deployment(
        self, actor: Actor, deployment: str, parameters: Mapping[str, Any]
    ) -> FlowRun:
        """Have the Prefect server run a deployment now.

        Raises:
            AccessError: The role is too low.
            LaunchError: There is no server, or it refuses.
        """
        require(actor, "launch runs")
        return self._server().launch(deployment, parameters)

    def cancel_flow_run(self, actor: Actor, flow_run: str) -> None:
        """Have the Prefect server end a run.

        Raises:
            AccessError: The role is too low.
            LaunchError: There is no server, or it refuses.
        """
        require(actor, "cancel runs")
        self._server().cancel(flow_run)

    def _registry(self) -> Registry:
        return open_line(self._home, self._url)

    def _server(self) -> Orchestrator:
        if self._orchestrator is None:
            raise LaunchError("no Prefect server is configured", "Set PREFECT_API_URL")
        return self._orchestrator
