r"""Exact text: is the answer the reference, letter for letter?

What does not count: case, width of characters (NFKC), runs of blanks, quotation marks around the
whole, a full stop at its end. If the answer has a ``\boxed{…}``, its last one is the answer.
Several references may be given, one a line; any of them is right.
"""

import unicodedata

from services.prompts import last_boxed
from services.types import Judgement, Problem, Verdict

_LONGEST = 10_000


def verify(problem: Problem, answer: str) -> Judgement:
    """Compare an answer with the lines of the reference."""
    references = [line for line in map(normalise, problem.gold.splitlines()) if line]
    if not references:
        return Judgement(Verdict.UNSCORABLE, "the reference is empty")
    boxed = last_boxed(answer)
    text = normalise((answer if boxed is None else boxed)[:_LONGEST])
    if text in references:
        return Judgement(Verdict.CORRECT, "is the reference")
    return Judgement(Verdict.WRONG, f"{text[:80]!r} is not {references[0][:80]!r}")


def normalise(text: str) -> str:
    """A text without what does not count."""
    text = " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
    return text.rstrip(".。").strip("\"'“”‘’«»「」` ").rstrip(".。")
