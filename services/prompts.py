r"""Prompt templates, and how a completion is taken apart.

The R1-Zero template is quoted from the paper (2501.12948v2, table 1). A completion starts right
after it, so it opens ``<think>`` itself.

Other prompts ask for other formats. ``boxed`` wants ``<think>…</think>`` and then prose with one
``\boxed{…}``, as released R1 models answer. The ``open`` variants are for chat templates whose
prompt ends with ``<think>``, so that the completion starts inside it.
"""

import re
from typing import Final, Literal, NamedTuple, get_args

Format = Literal["r1", "r1-open", "boxed", "boxed-open"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

R1_PREAMBLE: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think>...</think> "
    "and <answer>...</answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User:"
)
R1_TURN: Final = "Assistant:"

_BOXED: Final = "\\boxed{"
_BRACE: Final = re.compile(r"\\boxed\{|\\[{}\\]|[{}]")


def r1_prompt(question: str) -> str:
    """The question in the R1-Zero template."""
    return f"{R1_PREAMBLE} {question} {R1_TURN}"


class Parsed(NamedTuple):
    """A completion in its parts; ``violation`` names the first broken rule of the format."""

    think: str
    answer: str
    violation: str | None


def parse(completion: str, form: Format = "r1") -> Parsed:
    """Take a completion apart by its format, and name the first rule it breaks.

    The R1 format is one ``<think>…</think>`` followed by one ``<answer>…</answer>`` and nothing
    else but blanks. Broken completions still give up what can be found of their parts, because a
    metric over them (length of thought, language) is worth having.

    Args:
        completion: Any text.
        form: The format that the prompt asked for.
    """
    if form.endswith("-open"):
        if "<think>" in completion:
            think, _, rest = completion.partition("</think>")
            answer = _between(rest, "<answer>", "</answer>") if form == "r1-open" else rest
            return Parsed(think, answer, "<think> is opened again; the prompt has opened it")
        completion = f"<think>{completion}"
    think = _between(completion, "<think>", "</think>")
    if form.startswith("boxed"):
        _, _, answer = completion.partition("</think>")
        return Parsed(think, answer, _boxed_violation(completion))
    return Parsed(think, _between(completion, "<answer>", "</answer>"), _violation(completion))


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` holds, braces inside it matched; None if there is none.

    A box that is never closed does not count.
    """
    if _BOXED not in text:
        return None
    opened: list[int | None] = []
    found = None
    for match in _BRACE.finditer(text):
        brace = match.group()
        if brace == _BOXED:
            opened.append(match.end())
        elif brace == "{":
            opened.append(None)
        elif brace == "}" and opened:
            start = opened.pop()
            found = found if start is None else (start, match.start())
    return text[slice(*found)] if found else None


def _between(text: str, start: str, end: str) -> str:
    _, opened, rest = text.partition(start)
    return rest.partition(end)[0] if opened else ""


def _violation(text: str) -> str | None:
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        count = text.count(tag)
        if count != 1:
            return f"{tag} appears {count} times, not once"
    before, _, rest = text.partition("<think>")
    if before.strip():
        return "text before <think>"
    _, closed, rest = rest.partition("</think>")
    if not closed:
        return "</think> stands before <think>"
    gap, opened, rest = rest.partition("<answer>")
    if not opened:
        return "<answer> stands inside <think>"
    if gap.strip():
        return "text between </think> and <answer>"
    _, closed, after = rest.partition("</answer>")
    if not closed:
        return "</answer> stands before <answer>"
    if after.strip():
        return "text after </answer>"
    return None


def _boxed_violation(text: str) -> str | None:
    for tag in ("<think>", "</think>"):
        count = text.count(tag)
        if count != 1:
            return f"{tag} appears {count} times, not once"
    before, _, rest = text.partition("<think>")
    if before.strip():
        return "text before <think>"
    _, closed, answer = rest.partition("</think>")
    if not closed:
        return "</think> stands before <think>"
    if answer.count(_BOXED) != 1:
        return f"\\boxed{{…}} appears {answer.count(_BOXED)} times after </think>, not once"
    if last_boxed(answer) is None:
        return "\\boxed{ is never closed"
    return None
