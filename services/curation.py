"""Curation: which samples are worth teaching, and how they are rewritten to be read.

Two sets are made of the same parts. The *cold-start set* takes samples of r1-zero, keeps what is
correct, in one language, without repetition and short enough to read, and rewrites it in the
language of the question, with a summary (v2 B.3.2). The *SFT set* takes samples of
dev2, keeps what is correct and clean as it stands (v2 B.3.3), and adds non-reasoning rows. Nothing
is lost: every candidate leaves here as a row with its reason.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from services.config import Curation
from services.language import dominant_language
from services.metrics import Scored
from services.prompts import Format, compose, parse
from services.smallworld.phrases import PHRASES, Language
from services.smallworld.search import expression_text, steps_text, value_of
from services.tasks import general
from services.tasks.sources import general_problem
from services.traces import numbers_and_target, read_attempts
from services.types import CuratedRow, DropReason, Verdict

Rewrite = Callable[[Scored, Format], str]
"""A scored sample in a format to the completion that is taught; empty if it cannot be told
readably."""

NON_REASONING_QUALITIES: dict[general.Quality, float] = {"good": 0.75, "bare": 0.15, "curt": 0.10}
"""Written replies are of the mixed quality of a reused SFT set, so preference has work to do."""


def drop_reason(row: Scored, settings: Curation, form: Format = "r1") -> DropReason:
    """The first reason to drop a sample, in the order a reader would see it; or KEPT."""
    if row.score.verdict is Verdict.UNSCORABLE:
        return DropReason.UNSCORABLE
    if row.score.verdict is not Verdict.CORRECT:
        return DropReason.WRONG
    parsed = parse(row.completion.text, form)
    if parsed.violation is not None:
        return DropReason.FORMAT
    if dominant_language(parsed.think)[1] < settings.min_language_share:
        return DropReason.MIXED_LANGUAGE
    if row.facts.repeated_attempts > settings.max_repeated_attempts:
        return DropReason.REPETITION
    if row.facts.slips or len(row.completion.token_ids) > settings.max_think_tokens:
        return DropReason.UNREADABLE
    return DropReason.KEPT


def curate(
    groups: Sequence[Sequence[Scored]],
    settings: Curation,
    source: str,
    rewrite: Rewrite,
    form: Format = "r1",
) -> list[CuratedRow]:
    """Candidates in groups by problem to rows, at most ``keep_per_problem`` kept of each."""
    rows = []
    for group in groups:
        kept: set[str] = set()
        for row in group:
            reason = drop_reason(row, settings, form)
            text = rewrite(row, form) if reason is DropReason.KEPT else ""
            if reason is DropReason.KEPT and not text:
                reason = DropReason.UNREADABLE
            elif text in kept:
                reason, text = DropReason.DUPLICATE, ""
            elif text and len(kept) >= settings.keep_per_problem:
                reason, text = DropReason.QUOTA, ""
            if text:
                kept.add(text)
            rows.append(CuratedRow(row.problem, row.completion.text, text, reason, source))
    return rows


def as_sampled(row: Scored, form: Format = "r1") -> str:
    """No rewriting: the SFT set teaches samples as they are."""
    return row.completion.text


def rewrite_readable(row: Scored, form: Format = "r1") -> str:
    """A countdown trace retold in the question's language: the wish, the search, the summary.

    The summary is the bare solution, the form in which the base gives its answers: taught another
    one (boxed, or as an equation), models of this size lose up to nine answers in ten.

    The attempts stay what they were, in their order, up to the one that hits; only the words around
    them are written anew. They are words the base knows: a model this small unlearns arithmetic
    when its whole way of talking changes. Samples of other kinds are kept as they are: rewriting
    those takes a language model.
    """
    if row.problem.kind != "countdown":
        return row.completion.text
    numbers, target = numbers_and_target(row.problem.gold)
    language: Language = "zh" if row.problem.language == "zh" else "en"
    words = PHRASES[language]
    rng = random.Random(row.completion.text)
    fill = {"target": target, "numbers": " ".join(map(str, numbers))}
    attempts = read_attempts(parse(row.completion.text, form).think, numbers)
    parts = [words.understand.format_map(fill)]
    answer: tuple[int, ...] = ()
    for attempt in attempts:
        parts += [words.attempt, steps_text(numbers, attempt.signs), words.stop]
        if value_of(numbers, attempt.signs) == target:
            parts.append(words.successes[0].format_map(fill))
            answer = attempt.signs
            break
        parts += [rng.choice(words.failures).format_map(fill), rng.choice(words.continuations)]
    if not answer:
        return ""  # a right answer that its trace never reached
    return compose(" ".join(parts), expression_text(numbers, answer), form)


def non_reasoning_rows(count: int, seed: int) -> list[CuratedRow]:
    """Written rows for general prompts: greetings, who-are-you, polite help, refusals."""
    rng = random.Random(f"non-reasoning:{seed}")
    qualities = NON_REASONING_QUALITIES
    rows = []
    for _ in range(count):
        prompt = general.draw(rng)
        quality = rng.choices(list(qualities), list(qualities.values()))[0]
        if prompt.kind == "harmful":
            quality = "refusal"
        text = general.write_response(prompt, quality, prompt.language, rng)
        rows.append(CuratedRow(general_problem(prompt), text, text, DropReason.KEPT, "written"))
    return rows


class CurationSummary(NamedTuple):
    """How many candidates ended how."""

    candidates: int
    kept: int
    by_reason: dict[str, int]


def summarise(rows: Sequence[CuratedRow]) -> CurationSummary:
    """Count rows by reason."""
    counts = {reason.value: 0 for reason in DropReason}
    for row in rows:
        counts[row.reason.value] += 1
    counts = {reason: count for reason, count in counts.items() if count}
    return CurationSummary(len(rows), counts.get(DropReason.KEPT.value, 0), counts)
