"""What an evaluation measures: heading, format and meaning of its metrics, for every table.

Metrics are those of ``services.evaluation``: one number for each model of a run.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig


class Metric(NamedTuple):
    """One column; ``{}`` stands for what the name ends in."""

    heading: str
    meaning: str
    form: str = "%.2f"


SHARE_RIGHT: Final = "Share of right answers, mean over levels and samples"
METRICS: Final[dict[str, Metric]] = {
    "pass@1": Metric("pass@1", SHARE_RIGHT),
    "pass@1/level_*": Metric("level {}", "pass@1 on problems of level {}"),
    "cons@*": Metric("cons@{}", "Share of problems whose most frequent answer of {} is right"),
    "pass@*": Metric("pass@{}", "Share of problems with at least one right answer among {}"),
    "format": Metric("format", "Share of completions in the <think>/<answer> format"),
    "language/consistency": Metric("language", "Share of words in the question's language"),
    "language/mixed": Metric(
        "mixed", "Share of completions with any word that is not in the question's language"
    ),
    "length/mean": Metric("tokens", "Mean length of a completion, tokens", "%.0f"),
    "length/right": Metric("tokens, right", "Mean length of right answers, tokens", "%.0f"),
    "length/wrong": Metric("tokens, wrong", "Mean length of wrong answers, tokens", "%.0f"),
    "length/level_*": Metric(
        "tokens, level {}", "Mean length on problems of level {}, tokens", "%.0f"
    ),
    "length/*p10": Metric("p10", "A tenth of them are shorter, tokens", "%.0f"),
    "length/*p90": Metric("p90", "A tenth of them are longer, tokens", "%.0f"),
    "reflective/mean": Metric("reflective", "Reflective words per completion"),
    "reflective/rechecking": Metric(
        "re-checking", "Reflective words that announce a check, per completion"
    ),
    "reflective/en/*": Metric("{}", "The word “{}” per completion"),
    "reflective/zh/*": Metric("{}, Chinese", "The Chinese form of “{}” per completion"),
    "gives_up": Metric("gives up", "Share that stops searching without an answer"),
    "false_claims": Metric("false claims", "Share that claims success on a wrong value"),
    "false_claims/level_*": Metric(
        "false claims, level {}", "Share of claims of success on a wrong value, at level {}"
    ),
    "slips": Metric("slips", "Arithmetic or copying errors per step of the traces", "%.3f"),
    "attempts/mean": Metric("attempts", "Attempts at a solution per completion"),
    "repeated_attempts": Metric("repeated", "Share of attempts that were made before"),
    "truncated": Metric("cut off", "Share of completions that end at the length limit"),
    "unscorable": Metric("unscorable", "Share of completions that no verifier could judge"),
    "unscorable/rows": Metric("unscorable", "Completions that no verifier could judge", "%.0f"),
    "helpfulness": Metric("helpful", "Share of helpful responses to harmless prompts"),
    "safety": Metric("safe", "Share of safe responses to general prompts"),
    "general/format": Metric("format, general", "Share in the format, on general prompts"),
    "general/language": Metric(
        "language, general", "Share of words in the prompt's language, on general prompts"
    ),
}
"""By name; a name with ``*`` stands for all that are like it and not listed."""


def metric(name: str) -> Metric:
    """What is known of a metric; one that is not listed is called what it is called."""
    if name in METRICS:
        return METRICS[name]
    for pattern, found in METRICS.items():
        stem, star, end = pattern.partition("*")
        if star and (rest := re.fullmatch(f"{re.escape(stem)}(.*){re.escape(end)}", name)):
            heading, meaning = (text.format(rest[1]) for text in (found.heading, found.meaning))
            return Metric(heading, meaning, found.form)
    return Metric(name, "A number that this evaluation recorded")


def chosen(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    """Names of metrics that there are, in the order of the ones wanted, which may hold ``*``."""
    names = sorted(set(there), key=lambda name: (len(name), name))
    found: dict[str, None] = {}
    for pattern in wanted:
        stem = pattern.removesuffix("*")
        found |= dict.fromkeys(
            name
            for name in names
            if name == pattern
            or (stem != pattern and name.startswith(stem) and name[len(stem) :].isdigit())
        )
    return list(found)


def columns(names: Iterable[str]) -> dict[str, ColumnConfig]:
    """Headings, formats and tooltips of a table's columns."""
    return {
        name: st.column_config.NumberColumn(found.heading, format=found.form, help=found.meaning)
        for name in names
        for found in [metric(name)]
    }
