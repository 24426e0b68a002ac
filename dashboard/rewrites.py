"""What a rewrite changed, word by word. Pure."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from dashboard.plain_text import Piece

_WORD: Final = re.compile(r"\s+|\w+|[^\w\s]")
MAX_WORDS: Final = 6000
"""Longer texts are compared line by line: the time grows with the product of their lengths."""


def changes(original: str, rewritten: str) -> Iterator[Piece]:
    """The rewritten text with what was removed from the original, as pieces in reading order."""
    old, new = _cut(original, rewritten)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        removed, added = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        if kind == "equal":
            yield "plain", added
            continue
        if removed:
            yield "removed", removed
        if added:
            yield "added", added


def _cut(original: str, rewritten: str) -> tuple[list[str], list[str]]:
    old, new = _WORD.findall(original), _WORD.findall(rewritten)
    if max(len(old), len(new)) > MAX_WORDS:
        return original.splitlines(keepends=True), rewritten.splitlines(keepends=True)
    return old, new
