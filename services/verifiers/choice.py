r"""Multiple choice: which option does the answer name?

The reference is a letter, or several for questions with several right options (``AC``, ``A, C``).
The answer names its options in one of these forms, tried in this order:

1. the whole answer (or its last ``\boxed{…}``): ``B``, ``(b)``, ``**B**``, ``A and C``;
2. a letter with a mark at the start: ``B) Paris``, ``B. Paris``, ``(B) Paris``;
3. after *answer*, *option*, *choice*, 答案 or 选: ``the answer is B, because …``, ``选B``;
4. in brackets anywhere: ``so it is (B)``.

An answer that names different options in the form that decides is wrong. The text of an option
without its letter is not understood; use the kind ``exact`` for that.
"""

import re
from typing import Final

from services.prompts import last_boxed
from services.types import Judgement, Problem, Verdict

_LONGEST = 4_000
_DRESS: Final = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}|[*_`$]+")
_LETTERS: Final = r"[A-J](?:\s*(?:,|、|;|/|&|and|or|和|或)?\s*[A-J])*"
_WHOLE: Final = re.compile(
    rf"[(\[（]?\s*(?:[Oo]ption\s+|[Cc]hoice\s+)?({_LETTERS}|[a-j])\s*[)\]）]?\s*[.。:：)]?"
)
_AT_START: Final = re.compile(r"[(\[（]\s*([A-Ja-j])\s*[)\]）]|([A-J])\s*[.):：）、](?!\w\.)")
_AFTER_WORD: Final = re.compile(
    r"(?:[Aa]nswer|[Oo]ption|[Cc]hoice|答案|选项|选择|选)"
    r"(?:\s*(?:is|are|should be|would be|option|是|为|：|:))*"
    rf"\s*[(\[（]?\s*({_LETTERS})(?![A-Za-z])"
)
_BRACKETED: Final = re.compile(r"[(\[（]\s*([A-J])\s*[)\]）]")
_SEPARATORS: Final = re.compile(r"and|or|[^A-J]", re.IGNORECASE)


def verify(problem: Problem, answer: str) -> Judgement:
    """Compare the options an answer names with those of the reference."""
    whole = _WHOLE.fullmatch(problem.gold.strip())
    if whole is None:
        return Judgement(Verdict.UNSCORABLE, f"the reference is no option: {problem.gold[:40]!r}")
    right = _letters(whole[1])
    named = read_options(answer)
    if named is None:
        return Judgement(Verdict.WRONG, "no option is named")
    if named == right:
        return Judgement(Verdict.CORRECT, "names the right option")
    return Judgement(Verdict.WRONG, f"names {''.join(sorted(named))}, not {''.join(sorted(right))}")


def read_options(answer: str) -> frozenset[str] | None:
    """The options an answer names, as capital letters; None if it names none."""
    boxed = last_boxed(answer)
    text = (answer if boxed is None else boxed)[-_LONGEST:]
    text = _DRESS.sub(r"\1", text).strip()
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        return _letters(whole[1])
    start = _AT_START.match(text)
    if start is not None:
        return _letters(start[1] or start[2])
    for form in (_AFTER_WORD, _BRACKETED):
        found = [_letters(match[1]) for match in form.finditer(text)]
        if found:
            return frozenset().union(*found)
    return None


def _letters(text: str) -> frozenset[str]:
    return frozenset(_SEPARATORS.sub("", text.upper()))
