"""The deployments, once: which flows run when, on which work pool, with which job variables.

    retrain  on a schedule, and at once when there is an occasion for it: enough new problems, a
             champion that regressed, another base; and again when a retraining crashed
    monitor  on a schedule: measures the champion on fresh problems and reports what it sees

A pool is of type process (on this machine), docker or kubernetes. What a job of each needs is data
here and not in a server's form, so that a test can resolve it against the worker's own template.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from flows.environment import prefect_defaults
from flows.events import BASE_CHANGED, CHAMPION_REGRESSED, PROBLEMS_ENOUGH

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.deployments.runner import RunnerDeployment
    from prefect.flows import Flow

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = "r1flow"
"""What infra/Dockerfile is built as."""
IMAGE_CODE: Final = "/app"
IMAGE_STATE: Final = "/state"
LIMIT: Final = "r1-retraining"
"""The global concurrency limit that lets one retraining run at a time."""
CRASHES: Final = "r1-notice-crashes"
HEARTBEATS_MISSED_SECONDS: Final = 100
"""Flow runs tell every 30 s that they are alive; one that is silent this long has crashed."""
ANCHOR: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""Intervals count from here, so that registering them again moves no run."""
PoolType = Literal["process", "docker", "kubernetes"]
FORWARDED: Final = ("R1_STORE_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
"""Addresses that jobs in containers get from whoever registers the deployments."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool, and what its jobs need."""

    type: PoolType
    code: str
    """Folder in which a job finds this code."""
    job_variables: Mapping[str, Any]
    """For the pool's base job template."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """What the worker's default template lacks, merged into its job configuration."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One flow and when it runs."""

    name: str
    entrypoint: str
    cron: str
    events: tuple[str, ...] = ()
    """Names of events that start it at once."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    every_seconds: float | None = None
    """Instead of ``cron``."""
    again_after_crash: bool = False
    """Whether a crash starts it once more; it goes on from its last checkpoint."""


DEPLOYMENTS: Final = (
    Deployment(
        "retrain",
        "flows/retrain.py:retrain",
        cron="0 3 * * *",
        events=(PROBLEMS_ENOUGH, CHAMPION_REGRESSED, BASE_CHANGED),
        again_after_crash=True,
    ),
    Deployment("monitor", "flows/monitor.py:monitor", cron="30 * * * *"),
)


def pool_of(kind: PoolType, home: Path, image: str = IMAGE) -> Pool:
    """The pool of a type.

    Args:
        kind: Where jobs run.
        home: State folder of this machine; containers see ``/state`` instead.
        image: For containers, made from infra/Dockerfile.
    """
    if kind == "process":
        environment = {**prefect_defaults(home), **_LOUD, "PYTHONPATH": _python_path()}
        return Pool(
            "process",
            str(ROOT),
            {
                # In full, so that the job has our packages whatever the worker's path is.
                "command": f"{sys.executable} -m prefect.engine",
                "working_dir": str(ROOT),
                "env": environment,
            },
        )
    addresses = {name: os.environ[name] for name in FORWARDED if os.environ.get(name)}
    environment = {**prefect_defaults(Path(IMAGE_STATE)), **_LOUD, **addresses}
    if kind == "docker":
        return Pool(
            "docker",
            IMAGE_CODE,
            {
                "image": image,
                "image_pull_policy": "IfNotPresent",
                "env": environment,
                "networks": ["r1flow_default"],  # as docker-compose.yml names it
                "volumes": [f"r1flow_state:{IMAGE_STATE}"],
                "auto_remove": True,
            },
        )
    return Pool(
        "kubernetes",
        IMAGE_CODE,
        {
            "image": image,
            "image_pull_policy": "IfNotPresent",
            "env": environment,
            "namespace": "r1flow",
            "finished_job_ttl": 3600,
            "cpu_request": "2",
            "memory_request": "4Gi",
        },
        template=_STATE_VOLUME,
    )


_LOUD: Final = {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
_STATE_VOLUME: Final[Mapping[str, Any]] = {
    "job_manifest": {
        "spec": {
            "template": {
                "spec": {
                    "volumes": [
                        {"name": "state", "persistentVolumeClaim": {"claimName": "r1flow-state"}}
                    ],
                    "containers": [{"volumeMounts": [{"name": "state", "mountPath": IMAGE_STATE}]}],
                }
            }
        }
    }
}
"""Kubernetes' default job mounts nothing, and stages have to find each other's results."""


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def merged(base: Any, over: Any) -> Any:
    """``over`` merged into ``base``: tables key by key, lists item by item, the rest replaced."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        shared = {key: merged(base[key], value) for key, value in over.items() if key in base}
        return {**base, **over, **shared}
    if isinstance(base, list) and isinstance(over, list):
        pairs = [merged(old, new) for old, new in zip(base, over, strict=False)]
        return pairs + base[len(over) :] + over[len(base) :]
    return over


def base_template(pool: Pool) -> dict[str, Any]:
    """The worker's own job template, as Prefect ships it, with what the pool adds."""
    import prefect.server.api.collections_data.views as bundled

    path = Path(next(iter(bundled.__path__))) / "aggregate-worker-metadata.json"
    collections = json.loads(path.read_text(encoding="utf-8"))
    found = next(kinds[pool.type] for kinds in collections.values() if pool.type in kinds)
    template: dict[str, Any] = found["default_base_job_configuration"]
    template["job_configuration"] = merged(template["job_configuration"], pool.template)
    return template


def pool_name(kind: PoolType) -> str:
    """A pool of its own for each type, because a pool cannot change its type."""
    return f"r1-{kind}"


def build(deployment: Deployment, pool: Pool, flow: "Flow[..., Any]") -> "RunnerDeployment":
    """A deployment as Prefect registers it."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events import DeploymentEventTrigger, DeploymentTriggerTypes, TriggerTypes
    from prefect.runner.storage import LocalStorage
    from prefect.schedules import Cron, Interval

    schedule = (
        Cron(deployment.cron)
        if deployment.every_seconds is None
        else Interval(timedelta(seconds=deployment.every_seconds), anchor_date=ANCHOR)
    )
    name = f"r1-{deployment.name}"
    triggers: list[DeploymentTriggerTypes | TriggerTypes] = [
        DeploymentEventTrigger(name=f"{name}-on-{event.partition('.')[2]}", expect={event})
        for event in deployment.events
    ]
    if deployment.again_after_crash:
        of_this_flow: dict[str, str | list[str]] = {
            "prefect.resource.role": "flow",
            "prefect.resource.name": flow.name,
        }
        triggers.append(
            DeploymentEventTrigger(
                name=f"{name}-after-a-crash",
                expect={"prefect.flow-run.Crashed"},
                match_related=of_this_flow,
            )
        )
    built = RunnerDeployment.from_flow(
        flow,
        deployment.name,
        schedules=[schedule],
        parameters=dict(deployment.parameters),
        job_variables=dict(pool.job_variables),
        # What comes while one is at work would find it at work; it need not start to see that.
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        work_pool_name=pool_name(pool.type),
        triggers=triggers,
    )
    # Where the code lies for a job, not where it lies for whoever registers the deployment.
    built.entrypoint = deployment.entrypoint
    built.storage = LocalStorage(pool.code)
    return built


def register(pool: Pool, deployments: Sequence[Deployment] = DEPLOYMENTS) -> list[str]:
    """Create or update the limit, the pool, the automations and the deployments; the last by name.

    Raises:
        PlatformError: No server is named, or it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.flows import load_flow_from_entrypoint

    name = pool_name(pool.type)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        client.create_work_pool(
            WorkPoolCreate(name=name, type=pool.type, base_job_template=base_template(pool)),
            overwrite=True,
        )
        notice_crashes(client)
    names = []
    for deployment in deployments:
        flow: Flow[..., Any] = load_flow_from_entrypoint(str(ROOT / deployment.entrypoint))
        built = build(deployment, pool, flow)
        built.apply(work_pool_name=name)
        names.append(built.full_name)
    return names


def notice_crashes(client: "SyncPrefectClient") -> None:
    """Have the server call runs crashed whose process is gone without a word."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    ends = ("Completed", "Failed", "Crashed", "Cancelling", "Cancelled", "Paused", "Suspended")
    beat = "prefect.flow-run.heartbeat"
    automation = AutomationCore(
        name=CRASHES,
        trigger=EventTrigger(
            after={beat},
            expect={beat, *(f"prefect.flow-run.{state}" for state in ends)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=HEARTBEATS_MISSED_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message="Its process is gone: no sign of life.",
                force=False,
            )
        ],
    )
    for known in client.read_automations_by_name(CRASHES):
        client.delete_automation(known.id)
    client.create_automation(automation)
