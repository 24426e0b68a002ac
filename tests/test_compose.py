"""docker-compose.yml: the keys of the compose specification that it uses, and what they say.

The schema here is our own and covers what the file uses; an unknown key fails.
"""

import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import typer.main
import yaml

from flows.cli import app
from flows.deployments import pool_name

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]

TEXTS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
DURATION = {"type": "string", "pattern": r"^(\d+(\.\d+)?(us|ms|s|m|h))+$"}
CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
        },
        "image": {"type": "string"},
        "init": {"type": "boolean"},
        "command": {"type": "string"},
        "profiles": TEXTS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": TEXTS | {"items": {"type": "string", "pattern": r"^[\d.]+:\d+:\d+$"}},
        "volumes": TEXTS,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {"condition": {"enum": CONDITIONS}},
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "test": {"type": "array", "items": {"type": "string"}},
                "interval": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer"},
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
}


def test_the_file_has_the_form_of_the_specification():
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_happen(name):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        if how["condition"] == "service_healthy":
            assert other["healthcheck"]["test"][0] == "CMD"
        if how["condition"] == "service_completed_successfully":
            assert other["restart"] in {"no", "on-failure"}, "it ends, and is not started again"


def test_named_volumes_are_declared_and_folders_are_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_dir()
            else:
                assert source in COMPOSE["volumes"]


def test_store_mlflow_and_prefect_have_a_database_each():
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"@postgres:5432/(\w+)", text))
    made = set(re.findall(r"CREATE DATABASE (\w+);", _sql()))
    assert used == made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}
    assert len(used) == 3


def test_variables_are_ones_that_somebody_reads():
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    known = set(_get_settings_fields(Settings))
    ours = {"R1_HOME", "R1_STORE_URL", "MLFLOW_TRACKING_URI"}
    for name, service in SERVICES.items():
        if name != "postgres":
            for variable in service["environment"]:
                assert variable in ours | known, variable


def test_commands_exist():
    group = typer.main.get_command(app)
    words = shlex.split(SERVICES["deployments"]["command"])
    command = group.commands[words[1]]
    assert words[2] in {option for parameter in command.params for option in parameter.opts}
    worker = shlex.split(SERVICES["worker"]["command"])
    assert worker[worker.index("--pool") + 1] == pool_name(words[-1])
    module = shlex.split(SERVICES["prefect"]["command"])[2]
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def _sql() -> str:
    files = sorted((ROOT / "infra" / "postgres").glob("*.sql"))
    return "".join(path.read_text(encoding="utf-8") for path in files)
