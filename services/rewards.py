"""The reward of one completion: a visible formula over parts that are logged beside it.

    total = accuracy_weight · accuracy + format_weight · format
          + language_weight · language + preference_weight · preference
          + overlong_weight · overlong + repetition_weight · repetition + length_weight · length

Accuracy is 1 for a correct answer, format 1 where no rule of the format is broken, language the
share of words of the thought in the question's language, preference what a preference model said
(0…1). Accuracy and format weigh the same in the paper, and language is added directly (v2 2.2,
B.2). A part that does not apply is left out: general prompts have no accuracy, and only they have
a preference. Parts are unweighted. A row that cannot be scored has no total.

The last line is optional and off by default, because the paper has none of it. Its parts are 0 at
best and −1 at worst:

- overlong: falls from 0 to −1 over the last tokens before the length limit (DAPO, 2503.14476,
  equation 13);
- repetition: minus the share of word n-grams that were there before (2502.03373, 4.2);
- length: minus the share of the length limit that was used.

Left out: who computes the preference, and the advantage of a group.
"""

import re
from typing import Final

from services.config import RewardWeights, Shaping
from services.language import LANGUAGES, language_share
from services.prompts import Format, Parsed, parse
from services.types import Judgement, Problem, Score, Verdict
from services.verifiers import UNRULED, verifier_for

NO_RULE: Final = Judgement(Verdict.CORRECT, "no rule applies to general prompts")
"""What stands in for a verdict where there is nothing to verify; such rows have no accuracy."""


NO_SHAPING: Final = Shaping()


def score(
    problem: Problem,
    completion: str,
    *,
    weights: RewardWeights,
    judgement: Judgement | None = None,
    preference: float | None = None,
    target_language: str | None = None,
    form: Format = "r1",
    shaping: Shaping = NO_SHAPING,
    tokens: int = 0,
    max_tokens: int = 0,
) -> Score:
    """Score one completion.

    Args:
        problem: The question with its reference.
        completion: The sampled text, any text at all.
        weights: Weights of the formula.
        judgement: The verifier's word, if it was asked elsewhere (in a pool of child processes);
            by default it is asked here.
        preference: What a preference model says of the response, 0…1; None if none was asked.
        target_language: Language that the thought should be in; by default the question's.
        form: The format that the prompt asked for.
        shaping: Optional parts.
        tokens: Length of the completion; for shaping by length.
        max_tokens: Its limit; for shaping by length.

    Raises:
        ProblemError: No verifier has the problem's kind.
    """
    parsed = parse(completion, form)
    if judgement is None:
        judgement = judge(problem, parsed)
    parts: dict[str, float] = {}
    if problem.kind not in UNRULED and judgement.verdict is not Verdict.UNSCORABLE:
        parts["accuracy"] = float(judgement.verdict is Verdict.CORRECT)
    parts["format"] = float(parsed.violation is None)
    language = target_language or problem.language
    if language in LANGUAGES:
        parts["language"] = language_share(parsed.think, language)
    elif weights.language:
        reason = f"language consistency does not know the language {language!r}"
        judgement = Judgement(Verdict.UNSCORABLE, reason)
    if preference is not None:
        parts["preference"] = preference
    parts |= _shape(parsed.think, shaping, tokens, max_tokens)
    reason = judgement.reason
    if parsed.violation is not None:
        reason = f"{reason}; format: {parsed.violation}"
    scorable = judgement.verdict is not Verdict.UNSCORABLE
    return Score(
        judgement.verdict, reason, parts, total(parts, weights, shaping) if scorable else None
    )


def total(parts: dict[str, float], weights: RewardWeights, shaping: Shaping = NO_SHAPING) -> float:
    """The formula. A part that is absent adds nothing."""
    return (
        weights.accuracy * parts.get("accuracy", 0.0)
        + weights.format * parts.get("format", 0.0)
        + weights.language * parts.get("language", 0.0)
        + weights.preference * parts.get("preference", 0.0)
        + shaping.overlong * parts.get("overlong", 0.0)
        + shaping.repetition * parts.get("repetition", 0.0)
        + shaping.length * parts.get("length", 0.0)
    )


def _shape(think: str, shaping: Shaping, tokens: int, max_tokens: int) -> dict[str, float]:
    parts = {}
    if shaping.overlong and max_tokens:
        over = tokens - (max_tokens - shaping.overlong_tokens)
        parts["overlong"] = -min(max(over / max(shaping.overlong_tokens, 1), 0.0), 1.0)
    if shaping.repetition:
        parts["repetition"] = -repeated_share(think, shaping.repetition_words)
    if shaping.length and max_tokens:
        parts["length"] = -min(tokens / max_tokens, 1.0)
    return parts


_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


def repeated_share(text: str, size: int) -> float:
    """Share of a text's n-grams that it has said before; Han and kana count by character."""
    words = _WORD.findall(text)
    grams = list(zip(*(words[start:] for start in range(size)), strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def judge(problem: Problem, parsed: Parsed) -> Judgement:
    """Ask the problem's verifier about the answer that was taken out of a completion."""
    if problem.kind in UNRULED:
        return NO_RULE
    return verifier_for(problem.kind)(problem, parsed.answer)
