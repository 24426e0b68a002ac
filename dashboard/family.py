"""The ancestors of a model as a graph. Pure."""

from collections.abc import Sequence
from typing import Final

from services.views.ancestry import Ancestor

FILLS: Final = {
    "rl": "#CFE5F5",
    "sft": "#CDEBDD",
    "curation": "#FFE3A8",
    "preference": "#F3D9E8",
    "": "#E6E6E6",
}
"""Pale fills under dark words: they read on light and dark grounds."""
LINE: Final = "#8C8C8C"


def family_dot(ancestors: Sequence[Ancestor]) -> str:
    """The graph in DOT; arrows lead from what went in to what came out."""
    made = {ancestor.digest: ancestor for ancestor in ancestors}
    nodes = {row.digest: _label(row.stage, row.digest, row.run) for row in ancestors}
    edges = []
    for row in ancestors:
        for role, digest in row.inputs.items():
            nodes.setdefault(digest, _label("base model", digest, ""))
            style = "solid" if role == "policy" else "dashed"
            edges.append(
                f"{_quoted(digest)} -> {_quoted(row.digest)} [label={_quoted(role)} style={style}];"
            )
    lines = [
        "digraph family {",
        'rankdir=LR; bgcolor="transparent"; nodesep=0.25; ranksep=0.4;',
        'node [shape=box style="rounded,filled" fontname="sans-serif" fontsize=11 '
        f'margin="0.09,0.05" color="{LINE}" fontcolor="#1B1B1B"];',
        f'edge [color="{LINE}" fontcolor="{LINE}" fontname="sans-serif" fontsize=10 '
        "arrowsize=0.6];",
    ]
    for digest, label in nodes.items():
        kind = made[digest].kind if digest in made else ""
        fill = FILLS.get(kind, FILLS[""])
        lines.append(f'{_quoted(digest)} [label={_quoted(label)} fillcolor="{fill}"];')
    return "\n".join([*lines, *edges, "}"])


def _label(stage: str, digest: str, run: str) -> str:
    return "\n".join(filter(None, (stage, digest[:12], run)))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
