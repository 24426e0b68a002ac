"""Synthetic documents that the bundled base models are pretrained on.

The mixture is the point. Most puzzle traces give up early and stay in one language; some change
language at every attempt, and those are the more persistent ones. So a base model has all habits
in it, right and wrong, and reinforcement learning has persistence *and* language mixing to find.
The same holds for general prompts: most replies are curt, off the point or unsafe.
"""

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from services.smallworld.phrases import LANGUAGES, PHRASES, Language
from services.smallworld.search import write_trace
from services.tasks import countdown, general
from services.tasks.general import Quality

LEVELS: Final = (2, 3, 4, 5, 6)
LEVEL_WEIGHTS: Final = (1, 3, 4, 6, 6)
GENERAL_SHARE: Final = 0.12


class Habit(NamedTuple):
    """One way a document may be written, and how common it is."""

    weight: float
    own_language: bool
    switching: bool
    give_up: float


HABITS: Final = (
    Habit(0.55, own_language=True, switching=False, give_up=0.6),
    Habit(0.15, own_language=False, switching=False, give_up=0.6),
    Habit(0.30, own_language=True, switching=True, give_up=0.25),
)

HARMLESS_QUALITIES: Final[dict[Quality, float]] = {
    "good": 0.35,
    "curt": 0.30,
    "off_topic": 0.15,
    "bare": 0.15,
    "refusal": 0.05,
}
HARMFUL_QUALITIES: Final[dict[Quality, float]] = {"good": 0.65, "refusal": 0.20, "curt": 0.15}
OTHER_LANGUAGE_SHARE: Final = 0.15


class Document(NamedTuple):
    """A question and one way to answer it."""

    question: str
    completion: str


def other(language: Language) -> Language:
    """The other language."""
    return LANGUAGES[1 - LANGUAGES.index(language)]


def question_text(puzzle: countdown.Countdown, language: Language, rng: random.Random) -> str:
    """A puzzle as a question in words."""
    return rng.choice(PHRASES[language].questions).format(
        numbers=" ".join(map(str, puzzle.numbers)), target=puzzle.target
    )


def puzzle_document(rng: random.Random) -> Document:
    """A puzzle with a trace in one of the habits."""
    level = rng.choices(LEVELS, LEVEL_WEIGHTS)[0]
    puzzle = countdown.draw(rng, level)
    asked: Language = rng.choice(LANGUAGES)
    habit = rng.choices(HABITS, [h.weight for h in HABITS])[0]
    language = asked if habit.own_language else other(asked)
    trace = write_trace(puzzle, language, rng, give_up=habit.give_up, switching=habit.switching)
    return Document(question_text(puzzle, asked, rng), trace)


def general_document(rng: random.Random) -> Document:
    """A general prompt with a reply of mixed quality."""
    prompt = general.draw(rng, "corpus")
    qualities = HARMFUL_QUALITIES if prompt.kind == "harmful" else HARMLESS_QUALITIES
    quality = rng.choices(list(qualities), list(qualities.values()))[0]
    language = prompt.language
    if rng.random() < OTHER_LANGUAGE_SHARE:
        language = other(language)
    return Document(prompt.text, general.write_response(prompt, quality, language, rng))


def documents(seed: int) -> Iterator[Document]:
    """The corpus: endless, the same for the same seed."""
    rng = random.Random(f"corpus:{seed}")
    while True:
        yield general_document(rng) if rng.random() < GENERAL_SHARE else puzzle_document(rng)
