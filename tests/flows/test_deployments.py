"""Deployments: what a job of each pool type gets, resolved against the worker's own template."""

from pathlib import Path

import jsonschema
import pytest
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.templating import apply_values, find_placeholders

from flows.deployments import (
    CRASHES,
    DEPLOYMENTS,
    IMAGE_STATE,
    LIMIT,
    ROOT,
    base_template,
    build,
    merged,
    pool_name,
    pool_of,
    register,
)

KINDS = ("process", "docker", "kubernetes")


@pytest.mark.parametrize("kind", KINDS)
def test_job_variables_resolve_in_the_workers_template(kind, tmp_path):
    pool = pool_of(kind, tmp_path, image="registry.example/r1flow:1")
    template = base_template(pool)
    variables = template["variables"]
    assert set(pool.job_variables) <= set(variables["properties"])
    jsonschema.validate(dict(pool.job_variables), variables)
    left = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    assert set(pool.job_variables) <= left, "what nothing refers to changes nothing"
    job = apply_values(template["job_configuration"], dict(pool.job_variables))
    environment = job["env"]
    state = str(tmp_path) if kind == "process" else IMAGE_STATE
    assert environment["R1_HOME"] == state
    assert environment["PREFECT_LOGGING_TO_API_ENABLED"] == "true"
    assert all(isinstance(value, str) for value in environment.values())


def test_containers_find_image_state_and_servers(tmp_path, monkeypatch):
    monkeypatch.setenv("R1_STORE_URL", "postgresql://store/r1")
    docker = pool_of("docker", tmp_path, image="here:2").job_variables
    assert docker["image"] == "here:2"
    assert docker["env"]["R1_STORE_URL"] == "postgresql://store/r1"
    assert any(volume.endswith(f":{IMAGE_STATE}") for volume in docker["volumes"])
    pool = pool_of("kubernetes", tmp_path)
    job = apply_values(base_template(pool)["job_configuration"], dict(pool.job_variables))
    spec = job["job_manifest"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "prefect-job", "the worker's own container, with a mount"
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == IMAGE_STATE
    assert mount["name"] in {volume["name"] for volume in spec["volumes"]}


def test_merging_keeps_what_is_not_named():
    base = {"a": [{"x": 1}, 2], "b": {"c": 1, "d": 2}}
    over = {"a": [{"y": 3}], "b": {"d": 4}}
    assert merged(base, over) == {"a": [{"x": 1, "y": 3}, 2], "b": {"c": 1, "d": 4}}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one.name)
def test_every_deployment_names_a_flow_and_where_it_runs(deployment, tmp_path):
    flow = load_flow_from_entrypoint(str(ROOT / deployment.entrypoint))
    built = build(deployment, pool_of("docker", tmp_path), flow)
    assert built.entrypoint == deployment.entrypoint
    assert not Path(deployment.entrypoint.partition(":")[0]).is_absolute()
    assert built.storage.to_pull_step()["prefect.deployments.steps.set_working_directory"] == {
        "directory": "/app"
    }
    expected = {event for trigger in built.triggers for event in trigger.expect}
    assert set(deployment.events) <= expected
    assert ("prefect.flow-run.Crashed" in expected) == deployment.again_after_crash


def test_registering_twice_is_registering_once(home):
    pool = pool_of("process", home)
    for _ in range(2):
        names = register(pool)
    assert names == ["r1-retrain/retrain", "r1-monitor/monitor"]
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(LIMIT)
        assert (limit.limit, limit.active) == (1, True)
        assert client.read_work_pool(pool_name("process")).type == "process"
        assert len(client.read_automations_by_name(CRASHES)) == 1
        found = client.read_deployment_by_name("r1-retrain/retrain")
        assert [schedule.schedule.cron for schedule in found.schedules] == ["0 3 * * *"]
        assert found.work_pool_name == pool_name("process")
        for event in ("problems.enough", "champion.regressed", "base.changed"):
            assert len(client.read_automations_by_name(f"r1-retrain-on-{event}")) == 1
