"""Text that somebody else wrote, shown as text whatever it holds.

``st.text`` and ``st.code`` take it as it is after ``visible``. Where words of it are to stand out
(words of reflection, what a rewrite changed) it becomes HTML of our own: every character of it goes
through ``html.escape`` into the content of four fixed tags, never into a tag or an attribute.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import streamlit as st

Kind = Literal["plain", "marked", "added", "removed"]
Piece = tuple[Kind, str]

# Control characters, terminal escapes among them, and those that turn the reading direction.
VISIBLE: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (
        *range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F),
        *range(0x2066, 0x206A), 0xFEFF,
    )
    if chr(code) not in "\n\t"
}  # fmt: skip
_TAGS: Final[dict[Kind, tuple[str, str]]] = {
    "plain": ("<span>", "</span>"),
    "marked": ('<mark style="background:#F0E442;color:#1B1B1B">', "</mark>"),
    "added": ('<ins style="background:#009E7340">', "</ins>"),
    "removed": ('<del style="background:#D55E0040">', "</del>"),
}
"""Colours of Okabe and Ito; added and removed differ by underline and strike, too."""
_BLOCK: Final = (
    '<div style="white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;'
    'font-family:ui-monospace,monospace;font-size:0.85rem;line-height:1.5">'
)


def visible(text: str) -> str:
    """Text with its control characters made visible."""
    return text.translate(VISIBLE)


def pieces(text: str, pattern: re.Pattern[str]) -> Iterator[Piece]:
    """A text cut at the matches of a pattern, which are marked."""
    place = 0
    for match in pattern.finditer(text):
        if match.start() > place:
            yield "plain", text[place : match.start()]
        if match.group():
            yield "marked", match.group()
        place = match.end()
    if place < len(text):
        yield "plain", text[place:]


def as_html(parts: Iterable[Piece]) -> str:
    """Pieces of a text as HTML that shows exactly that text."""
    shown = []
    for kind, text in parts:
        begin, end = _TAGS[kind]
        shown.append(f"{begin}{html.escape(visible(text))}{end}")
    return f"{_BLOCK}{''.join(shown)}</div>"


def show(text: str) -> None:
    """Show a text in a box of its own, with a button that copies it."""
    st.code(visible(text), language=None, wrap_lines=True)


def show_pieces(parts: Iterable[Piece]) -> None:
    """Show a text some of whose pieces stand out, in a box."""
    with st.container(border=True):
        st.html(as_html(parts))
