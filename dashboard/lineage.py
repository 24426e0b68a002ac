"""The recipe as a graph: which model feeds which stage, and how far each one is.

The plan is drawn from the start; what a run has recorded of itself replaces it stage by stage.
Fills are pale and words dark, so the graph reads on light and dark grounds alike.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from services.views import Stage

PLAN: Final[dict[str, dict[str, str]]] = {
    "zero": {"policy": "base"},
    "cold-start": {"policy": "zero"},
    "dev1": {"policy": "base", "data": "cold-start"},
    "dev2": {"policy": "dev1"},
    "sft-set": {"policy": "dev2"},
    "dev3": {"policy": "base", "data": "sft-set"},
    "preference": {"policy": "base", "sampled": "dev3"},
    "r1": {"policy": "dev3", "preference": "preference"},
    "distill": {"policy": "student-base", "data": "sft-set"},
    "on-policy": {"policy": "distill", "teacher": "r1"},
    "student-rl": {"policy": "student-base"},
    "evaluate": {"distill": "distill", "student-rl": "student-rl", "r1": "r1"},
    "gate": {"candidate": "r1"},
    "export": {"candidate": "r1"},
}
"""Every stage of the recipe with where its inputs come from."""
OPTIONAL: Final = frozenset({"on-policy"})
"""Stages that are drawn only where they are recorded: most recipes leave them out."""

WORK: Final = {
    "zero": "RL → r1-zero",
    "cold-start": "sample, rewrite",
    "dev1": "SFT",
    "dev2": "RL, one language",
    "sft-set": "sample, reject",
    "dev3": "SFT",
    "preference": "2 models",
    "r1": "RL, all rewards",
    "distill": "SFT, student",
    "on-policy": "own samples",
    "student-rl": "RL, control",
    "evaluate": "every model",
    "gate": "promote?",
    "export": "to run anywhere",
}
FILLS: Final = {
    "finished": "#CDEBDD",
    "reused": "#CFE5F5",
    "running": "#FFE3A8",
    "failed": "#F6C4B4",
    "planned": "#FFFFFF",
}
RESTART: Final = "#D55E00"
LINE: Final = "#8C8C8C"


def lineage_dot(stages: Sequence[Stage]) -> str:
    """The graph in DOT."""
    recorded = {stage.name: stage for stage in stages}
    edges = lineage_edges(stages)
    models = {source for source, _, _ in edges if source not in PLAN and source not in recorded}
    lines = [
        "digraph recipe {",
        'rankdir=LR; bgcolor="transparent"; nodesep=0.25; ranksep=0.32;',
        'node [shape=box style="rounded,filled" fontname="sans-serif" fontsize=11 '
        f'margin="0.09,0.05" color="{LINE}" fontcolor="#1B1B1B"];',
        f'edge [color="{LINE}" fontname="sans-serif" fontsize=10 arrowsize=0.6];',
        *(f'{_quoted(name)} [shape=ellipse fillcolor="#E6E6E6"];' for name in sorted(models)),
        *(_node(name, recorded.get(name)) for name in stages_drawn(recorded)),
        *(_edge(source, target, role) for source, target, role in edges),
        "}",
    ]
    return "\n".join(lines)


def _node(name: str, stage: Stage | None) -> str:
    state = stage.state if stage else "planned"
    if stage and state == "running" and stage.total_steps > 1:
        state_text = f"step {stage.last_step} of {stage.total_steps}"
    elif stage and state == "finished":
        state_text = f"{stage.seconds:.0f} s"
    else:
        state_text = state
    style = 'style="rounded,filled,dashed"' if stage is None else ""
    label = _quoted("\n".join(filter(None, (name, WORK.get(name, ""), state_text))))
    return f'{_quoted(name)} [label={label} fillcolor="{FILLS.get(state, "#FFFFFF")}" {style}];'


def lineage_edges(stages: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """Source, target and role of everything that goes into a stage."""
    return list(_edges({stage.name: stage for stage in stages}))


def stages_drawn(recorded: Collection[str]) -> list[str]:
    """Stages of the plan in its order, then others that are recorded."""
    planned = [name for name in PLAN if name in recorded or name not in OPTIONAL]
    return [*planned, *(name for name in recorded if name not in PLAN)]


def _edges(recorded: Mapping[str, Stage]) -> Iterator[tuple[str, str, str]]:
    makers = {stage.output_digest: name for name, stage in recorded.items() if stage.output_digest}
    for target in stages_drawn(recorded):
        planned = PLAN.get(target, {})
        stage = recorded.get(target)
        if stage is None or stage.kind == "evaluation":  # every model goes there: only the last
            yield from ((source, target, role) for role, source in planned.items())
            continue
        for role, digest in stage.inputs.items():
            known = digest if digest in recorded else makers.get(digest)
            yield known or planned.get(role, role), target, role


def _edge(source: str, target: str, role: str) -> str:
    if source == "base" and role == "policy" and target in {"dev1", "dev3"}:
        return f'"{source}" -> "{target}" [color="{RESTART}" penwidth=2];'
    style = "solid" if role == "policy" else "dashed"
    return f"{_quoted(source)} -> {_quoted(target)} [style={style}];"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
