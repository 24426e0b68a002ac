"""Whether two questions are the same one: by their normalised text, or by a run of ten words.

The paper drops training text that shares any 10-gram with an evaluation question (v2, D). Words are
compared in one case and one Unicode form; signs count (``3 + 5`` is not ``3 - 5``), punctuation
does not. Chinese, Japanese and Korean have no blanks, so there each character is a word.

Countdown questions are made of one sentence and differ in their numbers alone, so for them the
numbers decide (``countdown.is_held_out``) and ten words in common say nothing.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from services.artifacts import digest_of
from services.tasks.countdown import is_held_out
from services.types import Problem

N: Final = 10
"""Words in a row that two questions may not share."""
_TOKEN: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]"  # one character, one word
    r"|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]+"
    r"|[^\w\s.,;:!?\"'。，；：！？、「」]"
)
Gram = tuple[str, ...]


def words_of(question: str) -> list[str]:
    """The words and signs of a question in normal form."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", question).casefold())


def question_digest(question: str) -> str:
    """Equal for questions that differ in case, blanks and punctuation alone."""
    return digest_of(" ".join(words_of(question)))


def grams_of(question: str) -> set[Gram]:
    """All runs of ten words."""
    words = words_of(question)
    return {tuple(words[start : start + N]) for start in range(len(words) - N + 1)}


class Known:
    """Questions that others are held against."""

    def __init__(self, questions: Iterable[str]) -> None:
        """Remember what each one is made of."""
        self._by_digest: dict[str, str] = {}
        self._by_gram: dict[Gram, str] = {}
        for question in questions:
            self.add(question)

    def add(self, question: str) -> None:
        """Remember one more."""
        self._by_digest.setdefault(question_digest(question), question)
        for gram in grams_of(question):
            self._by_gram.setdefault(gram, question)

    def same_as(self, problem: Problem) -> tuple[str, str] | None:
        """Why a problem is a known one (as a clause), and that question; None if it is new."""
        same = self._by_digest.get(question_digest(problem.question))
        if same is not None:
            return "asks the same as", same
        if problem.kind == "countdown":
            return None
        for gram in grams_of(problem.question):
            if gram in self._by_gram:
                return f"shares “{' '.join(gram)}” with", self._by_gram[gram]
        return None


def is_held_out_puzzle(problem: Problem) -> bool:
    """Whether a countdown's numbers belong to the held-out split."""
    if problem.kind != "countdown":
        return False
    try:
        numbers = json.loads(problem.gold)["numbers"]
        return is_held_out(numbers)
    except (ValueError, KeyError, TypeError):
        return False  # its verifier refuses it
