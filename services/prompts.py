r"""Prompt templates, and how a completion is taken apart and put together.

The R1-Zero template is quoted from the paper (2501.12948v2, table 1). A completion starts right
after it, so it opens ``<think>`` itself.

Other prompts ask for other formats. ``boxed`` wants ``<think>…</think>`` and then prose with one
``\boxed{…}``, as released R1 models answer. The ``open`` variants are for chat templates whose
prompt ends with ``<think>``, so that the completion starts inside it.

A model that was trained to chat can be asked through its own chat template instead (``chat``).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, get_args

from services.errors import RecipeError

Format = Literal["r1", "r1-open", "boxed", "boxed-open"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

R1_PREAMBLE: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think>...</think> "
    "and <answer>...</answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User:"
)
BOXED_PREAMBLE: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process is enclosed within <think>...</think> tags and "
    "the final answer is put into \\boxed{}, i.e., <think> reasoning process here </think> "
    "The answer is \\boxed{answer here}. User:"
)
R1_TURN: Final = "Assistant:"
_CHAT_WISHES: Final = {
    "r1": "Think first, within <think> and </think>. Then give the answer within <answer> and "
    "</answer>, and write nothing else.",
    "boxed": "Think first, within <think> and </think>. Then answer, with the final answer within "
    "\\boxed{}.",
}
_OPEN: Final = "-open"

_BOXED: Final = "\\boxed{"
_BRACE: Final = re.compile(r"\\boxed\{|\\[{}\\]|[{}]")


def r1_prompt(question: str) -> str:
    """The question in the R1-Zero template."""
    return f"{R1_PREAMBLE} {question} {R1_TURN}"


class ChatTokenizer(Protocol):
    """What asking through a chat template needs of a tokenizer."""

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        tokenize: Literal[False],
        add_generation_prompt: Literal[True],
    ) -> str:
        """The conversation as text, up to where the assistant begins."""
        ...


class Prompting(NamedTuple):
    """How a recipe puts its questions."""

    form: Format = "r1"
    """The format that the prompt asks for."""
    chat: ChatTokenizer | None = None
    """Whose chat template is used in place of the paper's."""

    def prompt(self, question: str) -> str:
        """The text that a completion follows.

        Raises:
            RecipeError: The chat template is missing, or does not go with the format.
        """
        if self.chat is not None:
            return self._chat_prompt(question, self.chat)
        preamble = BOXED_PREAMBLE if self.form.startswith("boxed") else R1_PREAMBLE
        opened = " <think>" if self.form.endswith(_OPEN) else ""
        return f"{preamble} {question} {R1_TURN}{opened}"

    def _chat_prompt(self, question: str, tokenizer: ChatTokenizer) -> str:
        base = self.form.removesuffix(_OPEN)
        message = {"role": "user", "content": f"{question}\n\n{_CHAT_WISHES[base]}"}
        try:
            text = tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
        except ValueError as error:
            raise RecipeError(
                "the model has no chat template", "Leave out problems.chat, or name another model"
            ) from error
        opens = text.rstrip().endswith("<think>")
        if opens and self.form == base:
            raise RecipeError(
                f"the chat template opens <think> itself, so completions cannot be {base!r}",
                f"Set problems.format={base}{_OPEN}",
            )
        return text if opens or self.form == base else f"{text}<think>\n"


R1_PROMPTING: Final = Prompting()
"""The paper's: its template and its format."""


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
    if form.endswith(_OPEN):
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


def compose(think: str, answer: str, form: Format = "r1") -> str:
    """A completion of these parts, as ``parse`` takes it apart."""
    opening = "" if form.endswith(_OPEN) else "<think> "
    if form.startswith("boxed"):
        return f"{opening}{think} </think> \\boxed{{{answer}}}"
    return f"{opening}{think} </think> <answer> {answer} </answer>"


def final_answer(text: str) -> str:
    r"""The last ``\boxed{…}`` of an answer, or all of it without one; blanks are evened out."""
    boxed = last_boxed(text)
    return " ".join((text if boxed is None else boxed).split())


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
