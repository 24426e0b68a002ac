"""What the platform tells: Prefect events that start deployments and that people can subscribe to.

Without a server nobody listens and nothing is sent.
"""

from collections.abc import Mapping
from typing import Any, Final

PROBLEMS_ENOUGH: Final = "r1.problems.enough"
CHAMPION_REGRESSED: Final = "r1.champion.regressed"
CHAMPION_CHANGED: Final = "r1.champion.changed"
BASE_CHANGED: Final = "r1.base.changed"
RETRAINING_ENDED: Final = "r1.retraining.ended"


def tell(event: str, model: str, said: Mapping[str, Any]) -> bool:
    """Emit an event about a registered model; False if there is no server to tell.

    Args:
        event: One of the names above.
        model: Registered model, the event's resource ``r1.model.NAME``.
        said: Plain data about it.
    """
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return False
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"r1.model.{model}", "prefect.resource.name": model}
    emit_event(event, resource=resource, payload=dict(said))
    return True
