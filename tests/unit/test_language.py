"""Which words count, and for which language."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import services
from services.errors import ProblemError
from services.language import LANGUAGES, count_words, dominant_language, language_share

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN: dict[str, Any] = json.loads((FOLDER / "language_cases.json").read_text(encoding="utf-8"))
SENTENCES: dict[str, list[dict[str, Any]]] = GOLDEN["sentences"]
"""Three sentences of each language, their words counted by hand."""
PAIRS = FOLDER / "language_pairs.json"


def mixed(one: str, other: str, separator: str) -> dict[str, Any]:
    """A text of ``one`` with a sentence of ``other`` in its middle, and its share by hand."""
    first, second, third = SENTENCES[one][0], SENTENCES[other][1], SENTENCES[one][2]
    own = first["words"] + third["words"]
    return {
        "target": one,
        "other": other,
        "text": separator.join(part["text"] for part in (first, second, third)),
        "share": round(own / (own + second["words"]), 4),
    }


def table_of_pairs() -> list[dict[str, Any]]:
    """The golden table; ``make golden`` writes it anew when a sentence has changed."""
    made = [mixed(one, other, ". ") for one, other in itertools.permutations(LANGUAGES, 2)]
    if os.environ.get("R1_GOLDEN") == "write":
        lines = ",\n".join(f" {json.dumps(row, ensure_ascii=False)}" for row in made)
        PAIRS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(PAIRS.read_text(encoding="utf-8"))
    assert rows == made
    return rows


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["what"])
def test_golden_case(case: dict[str, Any]) -> None:
    share = language_share(case["text"], case["target"])
    assert share == pytest.approx(case["share"], abs=0.001)


def test_golden_table_has_every_language() -> None:
    assert set(SENTENCES) == set(LANGUAGES)


@pytest.mark.parametrize(
    "row", table_of_pairs(), ids=lambda row: f"{row['other']} in {row['target']}"
)
def test_mixed_text_of_every_pair(row: dict[str, Any]) -> None:
    assert language_share(row["text"], row["target"]) == pytest.approx(row["share"], abs=0.03)


@pytest.mark.parametrize("separator", [" , ", "\n"])
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(LANGUAGES, 2)))
def test_mixed_text_however_it_is_separated(one: str, other: str, separator: str) -> None:
    row = mixed(one, other, separator)
    assert language_share(row["text"], one) == pytest.approx(row["share"], abs=0.03)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pure_text(language: str) -> None:
    text = " ".join(sentence["text"] + "." for sentence in SENTENCES[language])
    assert dominant_language(text) == (language, 1.0)
    assert {code: language_share(text, code) for code in LANGUAGES} == {
        code: float(code == language) for code in LANGUAGES
    }


def test_dominant_language_is_the_one_of_most_words() -> None:
    assert dominant_language("try 试 not 不是 wait") == ("en", 0.6)
    assert dominant_language("3 + 5 = 8") == ("", 1.0)


def test_words_are_counted_by_language() -> None:
    assert count_words("we need 苹果 and яблоки", "en") == {"en": 3, "zh": 1, "ru": 1}


def test_unknown_language_names_those_there_are() -> None:
    with pytest.raises(ProblemError, match=r"'tlh'.*en, fr"):
        language_share("nuqneH", "tlh")


def test_scripts_need_no_library() -> None:
    """English, Chinese and other scripts load neither a model nor a dictionary."""
    program = """
import sys
from services.language import dominant_language, language_share
text = "try 3 +5 =8 . not 11 . wait , but that is wrong . 试 3 +5 =8 。 不是 11 。 等等 ，"
for language in ("en", "zh", "ru"):
    language_share(text, language)
dominant_language(text), language_share("这个答案是不对的", "zh"), language_share("яблоки", "ru")
loaded = [name for name in ("icu4py", "py3langid", "numpy", "torch") if name in sys.modules]
sys.exit(", ".join(loaded) or 0)
"""
    root = Path(services.__file__).parents[1]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
