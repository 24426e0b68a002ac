"""Policies: what a registered model asks of whoever wants to be its champion, one TOML file each.

A policy belongs to the model, not to a recipe: it holds for every candidate, whoever trained it. A
recipe's ``[gate]`` may ask for more (``tightened``) and never for less. The bundled files lie
beside this one; a file of the same name in ``policies`` of R1_HOME changes single keys of them.
Metrics are named as in the stage table (``pass@1``, ``pass@1/level_5``, ``length/mean``, …); one
that is asked for and was not measured fails, so a name that is misspelt refuses rather than lets
pass.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator

from services.config import Gate
from services.config_base import Count, Natural, Positive, Settings, Share
from services.errors import PolicyError

FOLDER: Final = Path(__file__).parent
Bounds = dict[str, float]
"""Metric name to bound."""
Confidence = Annotated[float, Field(gt=0.5, lt=1.0)]


class Approval(Settings):
    """Whether a person has the last word."""

    required: Literal["never", "always"] = "never"
    """``always``: what the gate lets pass becomes champion only when somebody approves."""
    hours: Positive = 72.0
    """How long a request waits for an answer."""
    at_timeout: Literal["reject", "approve"] = "reject"
    """What happens when nobody answered."""


class Monitoring(Settings):
    """When the champion counts as worse than it was (see ``services.monitoring``)."""

    problems_per_level: Count = 16
    """Fresh problems of each level (or of the file, where there are no levels)."""
    samples: Natural = 0
    """Completions of each; 0: as many as the baseline's protocol."""
    confidence: Confidence = 0.99
    """One-sided and joint over all metrics: of 1 − this share of checks, at most, a champion that
    did not change raises an alarm."""
    max_accuracy_drop: Share = 0.05
    """Of pass@1."""
    max_language_drop: Share = 0.05
    """Of language consistency."""
    max_format_failures: Share = 0.05
    """Growth of the share of completions outside the format."""
    max_length_change: Positive = 0.25
    """Growth or fall of the mean length, as a share of the baseline's."""


class Retention(Settings):
    """What is kept beside champions, their ancestors, pinned versions and what waits."""

    keep_runs: Natural = 5
    """Artifacts of so many last runs."""
    keep_days: Natural = 30
    """Artifacts younger than so many days."""


class Policy(Settings):
    """What a registered model asks for."""

    description: str = ""
    """One sentence."""
    required: tuple[str, ...] = ("pass@1", "format", "language/consistency")
    """Metrics that must have been measured."""
    minimum: Bounds = {}  # noqa: RUF012 (frozen, and pydantic copies it)
    """Least values: accuracy, format, language, safety, …"""
    maximum: Bounds = {}  # noqa: RUF012
    """Largest values: length, truncation, … what an answer may cost."""
    gain: Bounds = {}  # noqa: RUF012
    """Least gains over the model that training started from."""
    margin: Bounds = {"pass@1": 0.02}  # noqa: RUF012
    """Must not regress: how far the lower end of the paired interval may lie below the champion."""
    confidence: Confidence = 0.95
    """One-sided, of that interval."""
    min_problems: Count = 2
    """Fewest common problems that an interval may rest on."""
    smoke: bool = True
    """The checkpoint must load from its folder alone and generate from finite numbers."""
    approval: Approval = Approval()
    """Whether a person has the last word."""
    monitoring: Monitoring = Monitoring()
    """When the champion counts as worse than it was."""
    retention: Retention = Retention()
    """What may be removed, when somebody asks for it."""

    @field_validator("margin")
    @classmethod
    def _margins_are_not_negative(cls, bounds: Bounds) -> Bounds:
        if any(bound < 0 for bound in bounds.values()):
            raise ValueError("a margin is how much worse is still good enough, 0 or more")
        return bounds


def tightened(policy: Policy, gate: Gate) -> Policy:
    """The policy with what a recipe asks for beyond it; the stricter bound counts.

    A bound of 0 in a recipe's gate asks for nothing, as does a ``max_regression`` of 1.
    """
    minimum, gain, margin = dict(policy.minimum), dict(policy.gain), dict(policy.margin)
    asked = {
        "pass@1": gate.min_pass_at_1,
        "language/consistency": gate.min_language,
        "format": gate.min_format,
        "safety": gate.min_safety,
    }
    for name, bound in asked.items():
        if bound > 0:
            minimum[name] = max(bound, minimum.get(name, bound))
    if gate.min_gain_over_base > 0:
        gain["pass@1"] = max(gate.min_gain_over_base, gain.get("pass@1", 0.0))
    if gate.max_regression < 1:
        margin["pass@1"] = min(gate.max_regression, margin.get("pass@1", 1.0))
    return policy.model_copy(update={"minimum": minimum, "gain": gain, "margin": margin})


def policy_files(model: str, home: Path) -> list[Path]:
    """The files that make a model's policy, the last one has the last word.

    Students share a bundled file (``r1-distill.toml``); a model of another name has none and gets
    the defaults.
    """
    bundled = [FOLDER / f"{name}.toml" for name in (_family(model), model)]
    own = [home / "policies" / f"{name}.toml" for name in (_family(model), model)]
    return [path for path in dict.fromkeys([*bundled, *own]) if path.is_file()]


def load_policy(model: str, home: Path) -> Policy:
    """The policy of a registered model.

    Args:
        model: ``r1`` or ``r1-distill-STUDENT``.
        home: State folder; its ``policies`` folder may hold files that change single keys.

    Raises:
        PolicyError: A file, a key or a value is not valid; the message names the nearest key.
    """
    merged: dict[str, Any] = {}
    for path in policy_files(model, home):
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path} is not valid TOML: {error}", "Mend that line") from error
        _require_valid(path, raw)
        merged = _merged(merged, raw)
    return Policy.model_validate(merged)


def _family(model: str) -> str:
    """``r1-distill`` for every student."""
    return "r1-distill" if model.startswith("r1-distill-") else model


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, everything else is replaced."""
    tables = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **over, **tables}


def _require_valid(path: Path, raw: dict[str, Any]) -> None:
    """Each file is valid by itself, so that the message can name it."""
    try:
        Policy.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] != "extra_forbidden":
            raise PolicyError(
                f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}",
                f"Got {first['input']!r}",
            ) from error
        nearest = difflib.get_close_matches(where, _keys(), n=1, cutoff=0.5)
        raise PolicyError(
            f"{path} has a key {where!r} that no policy has",
            f"Did you mean {nearest[0]}?" if nearest else f"Choose among {', '.join(_keys())}",
        ) from error


def _keys() -> list[str]:
    keys = list(Policy.model_fields)
    for name, table in (
        ("approval", Approval.model_fields),
        ("monitoring", Monitoring.model_fields),
        ("retention", Retention.model_fields),
    ):
        keys += [f"{name}.{key}" for key in table]
    return keys
