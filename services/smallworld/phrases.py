"""The words of the small world in its two languages.

Each list is a choice of ways to say one thing. Words are separated by blanks, in Chinese too: the
tokenizer knows one word per token. ``{target}`` and ``{numbers}`` are filled in. The reflective
words are those the paper counts (v2, figure 9a), so that the same counter reads a 7B model.
"""

from typing import Final, Literal, NamedTuple

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


class Phrases(NamedTuple):
    """How one language says what a trace needs to say."""

    questions: tuple[str, ...]
    """Prompts; hold ``{numbers}`` and ``{target}``."""
    openings: tuple[str, ...]
    """First words of a trace; the empty one means none."""
    attempt: str
    """Opens an attempt."""
    stop: str
    """Closes a sentence."""
    failures: tuple[str, ...]
    """Says that the attempt missed; hold ``{target}``."""
    continuations: tuple[str, ...]
    """Leads from a miss to the next attempt; each holds a reflective word."""
    successes: tuple[str, ...]
    """Says that the attempt hit; hold ``{target}``."""
    verify: str
    """Opens a second look at an attempt that hit."""
    verified: str
    """Closes it."""
    give_up: str
    """The last words of a trace without a solution."""
    none: str
    """The answer of a trace without a solution."""
    understand: str
    """How a rewritten trace begins: by saying what is wanted."""


EN = Phrases(
    questions=(
        "make {target} from {numbers} in this order with plus and minus .",
        "which signs between {numbers} give {target} ?",
    ),
    openings=("", "let me see .", "we need {target} ."),
    attempt="try",
    stop=".",
    failures=("that is not {target} .", "not {target} .", "no , not {target} ."),
    continuations=(
        "wait ,",
        "wait ,",
        "but wait ,",
        "retry ,",
        "wrong ,",
        "however ,",
        "mistake ,",
    ),
    successes=("yes , that is {target} .", "that is {target} , good ."),
    verify="verify :",
    verified="right .",
    give_up="i give up .",
    none="none",
    understand="we need {target} .",
)

ZH = Phrases(
    questions=(
        "用 {numbers} 按 顺序 加 减 得到 {target} 。",
        "{numbers} 之间 用 什么 符号 得 {target} ？",
    ),
    openings=("", "让 我 看看 。", "我们 需要 {target} 。"),
    attempt="试",
    stop="。",
    failures=("这 不是 {target} 。", "不是 {target} 。", "不对 ， 不是 {target} 。"),
    continuations=(
        "等等 ，",
        "等等 ，",
        "但是 等等 ，",
        "重试 ，",
        "错误 ，",
        "然而 ，",
        "再 检查 ，",
    ),
    successes=("对 ， 这 是 {target} 。", "这 是 {target} ， 好 。"),
    verify="验证 ：",
    verified="正确 。",
    give_up="我 放弃 。",
    none="无",
    understand="我们 需要 {target} 。",
)

PHRASES: Final[dict[Language, Phrases]] = {"en": EN, "zh": ZH}
