"""Words of reflection: the ten of the paper (v2, figure 9a) and their Chinese forms.

Counting them rewards nothing: it is how one sees that a model looks at its own work again.
"""

import re
from typing import Final, NamedTuple


class Forms(NamedTuple):
    """How one word of the list is written in the two languages."""

    en: str
    zh: str


REFLECTIVE_WORDS: Final[dict[str, Forms]] = {
    "wait": Forms("wait", "等等"),
    "mistake": Forms("mistake", "失误"),
    "however": Forms("however", "然而"),
    "but": Forms("but", "但是"),
    "retry": Forms("retry", "重试"),
    "error": Forms("error", "错误"),
    "verify": Forms("verify", "验证"),
    "wrong": Forms("wrong", "错了"),
    "evaluate": Forms("evaluate", "评估"),
    "check": Forms("check", "检查"),
}
"""The paper's words, each with the forms it is counted in."""

RECHECKING: Final = ("verify", "check", "evaluate")
"""Those that say that something done is looked at once more."""

REFLECTIVE: Final = re.compile(
    "|".join(
        rf"\b{form}\b" if form.isascii() else form
        for forms in REFLECTIVE_WORDS.values()
        for form in forms
    ),
    re.IGNORECASE,
)
"""Finds every form of every word."""
_WORD_OF: Final = {form: word for word, forms in REFLECTIVE_WORDS.items() for form in forms}


def count_reflective_words(text: str) -> int:
    """How many reflective words a text holds."""
    return sum(1 for _ in REFLECTIVE.finditer(text))


def reflective_word_counts(text: str) -> dict[str, int]:
    """The same by word of the paper's list; words that do not occur are left out."""
    counts: dict[str, int] = {}
    for form, count in reflective_form_counts(text).items():
        counts[_WORD_OF[form]] = counts.get(_WORD_OF[form], 0) + count
    return counts


def reflective_form_counts(text: str) -> dict[str, int]:
    """The same by form, English and Chinese apart; forms that do not occur are left out."""
    counts: dict[str, int] = {}
    for match in REFLECTIVE.finditer(text):
        form = match.group().lower()
        counts[form] = counts.get(form, 0) + 1
    return counts
