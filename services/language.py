"""Language consistency: which share of the words of a text is in its language (v2 B.2).

    share = words in the target language / words

Formulas, numbers, operators (``+5``, ``=8``), tags, code and short quotations do not count.
Unicode scripts decide most words without a model: Hangul is Korean, Cyrillic Russian, Arabic
letters Arabic, Han characters Chinese, or Japanese in a clause with kana. Only two questions need a
library, and it is loaded when they first come up:

- Which Latin-script language? A function word or an accent of another language raises it; then
  *py3langid* (BSD, 5 MB, 15 µs a clause) decides clause by clause. Beside it lingua (96 MB, ten
  times slower) and simplemma (370 MB of memory) were no better on clauses of three to eight words.
- How many words has a run of Chinese or Japanese without blanks? *icu4py* (MIT, 16 MB) holds the
  dictionaries of ICU for both; jieba knows one of them and had its last release in 2020.

Left out: telling apart languages within Cyrillic or Arabic script, and names that nobody quotes.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from services.errors import ProblemError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LATIN: Final = ("en", "fr", "de", "es", "pt")
LANGUAGES: Final = (*LATIN, "zh", "ja", "ko", "ru", "ar")
OTHER: Final = "other"
"""Words in a script that none of the languages uses."""

_LETTERS: Final = {
    "latin": r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
    r"\uff21-\uff3a\uff41-\uff5a",
    "kana": r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "han": r"\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    "ko": r"\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
    "ru": r"\u0400-\u052f\u2de0-\u2dff\ua640-\ua69f",
    "ar": r"\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06e8\u06ea-\u06ef\u06fa-\u06ff"
    r"\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
}
"""Letters of the scripts as they are written in a character class of a regular expression."""
_MARKS: Final = r"\u0300-\u036f"
_WORD: Final = re.compile(
    rf"(?P<latin>[{_LETTERS['latin']}][{_LETTERS['latin']}{_MARKS}]*"
    rf"(?:['’\-][{_LETTERS['latin']}{_MARKS}]+)*)"
    rf"|(?P<cjk>[{_LETTERS['han']}{_LETTERS['kana']}]+)"
    rf"|(?P<ko>[{_LETTERS['ko']}]+)"
    rf"|(?P<ru>[{_LETTERS['ru']}]+)"
    rf"|(?P<ar>[{_LETTERS['ar']}]+)"
    r"|(?P<other>[^\W\d_]+)"
)
_KANA: Final = re.compile(f"[{_LETTERS['kana']}]")
_CLAUSE: Final = re.compile(r"[\n.,;:!?。，、；：！？…()（）]+")
_HAN_NUMERALS: Final = frozenset("零〇一二两三四五六七八九十百千万亿几")
_MAX_HAN_WORD = 3
"""A run of Han characters up to this length is one word, as words between blanks are."""
_MAX_KANJI_COMPOUND = 6
"""In a Japanese text, a longer clause without any kana is Chinese."""

_NO_PROSE_MARKS: Final = ("`", "$", "\\", "<", '"', "“", "«", "「", "『", "《", "://")
"""One of these is in every text that has something below; looking for them is quicker."""
_NO_PROSE: Final = re.compile(
    r"```(?:(?!```).)*```"
    r"|`[^`\n]*`"
    r"|\$\$[^$]*\$\$"
    r"|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)"
    r"|\\\[(?:(?!\\[\[\]]).)*\\\]"
    r"|\\\((?:(?!\\[()]).)*\\\)"
    r"|\\[A-Za-z]+"
    r"|</?[A-Za-z][^<>\n]{0,80}>"
    r"|[a-z]{2,8}://[^\s<>]{1,2000}"
    r'|"[^"\s]{1,30}(?: [^"\s]{1,30}){0,2}"'
    r"|“[^“”\n]{1,30}”|«[^«»\n]{1,30}»|「[^「」\n]{1,20}」|『[^『』\n]{1,20}』|《[^《》\n]{1,20}》",
    re.DOTALL,
)
_FORMULA_TOKEN: Final = re.compile(
    rf"[=^_|<>{{}}*+]|\d[{_LETTERS['latin']}]|[{_LETTERS['latin']}]\d"
)
_FORMULA_WORDS: Final = frozenset(
    re.findall(
        r"\w+", "sin cos tan cot sec csc log ln lim max min mod gcd lcm exp det arg sup inf deg pi"
    )
)
_VOWELS: Final = frozenset("aeiouyåæøœ")

_SIGNS: Final = {
    "en": "a about after all also an and another answer are as at be because but by can check could"
    " den des do does each find first for from give gives good had has have he her how however"
    " if in into is it its just let make man me minus mistake more must need no not now of on"
    " one only or other our out plus result retry right see she should so solve some son than"
    " that the their them then there therefore these they this to total try two value verify"
    " wait was we were what when which will with would wrong yes you your",
    "fr": "alors attends au aussi aux avec car ce cela ces cette chaque comme comment dans de des"
    " deux doit donc du elle elles en encore ensuite est et faut faux il ils je la le les leur"
    " maintenant mais ne nombre notre nous ou où par pas peut plus pour puis que qui réponse"
    " résultat sa ses si son sont sur total tout trop un une vous vérifions être",
    "de": "aber addiere alle als also an antwort auch auf aus bei bleibt da daher dann das dass dem"
    " den der des die dies diese dieser doch durch ein eine einem einen einer er ergebnis"
    " ergibt es falsch für haben hat ich ihr in ist jede jeder jedes jetzt kann mit muss nach"
    " nicht noch nun nur oder prüfen richtig sein sich sie sind so sondern teilen um und uns"
    " von war warte was weil wenn werden wert wie wieder wir wird zahl zu zuerst zum zur zwei",
    "es": "a ahora al así cada como con cuando da de debe del dos el ella ellos en entonces entre"
    " es eso espera esta este esto está hay la las le lo los luego mal menos mismo muy más no"
    " nos nuestro número o otra otro para pero por porque primero que queda respuesta"
    " resultado se sea ser si sobre solo son su sus también tanto tenemos total un una valor y"
    " ya",
    "pt": "a agora ainda ao aos as cada com como da das de depois deve do dois dos e ela ele eles"
    " em entre então errado espera esse esta este está isso isto já logo mais mas mesmo muito"
    " na nas no nos nossa nosso não nós número o os ou outra outro para pela pelo por porque"
    " portanto primeiro quando que resposta resta resultado se seja sem ser seu sobre sua são"
    " também temos tentar total um uma valor vamos é",
}
"""Common words of the Latin-script languages. Those that two languages share stand in both."""
_HINTS: Final[dict[str, frozenset[str]]] = {
    word: frozenset(code for code, words in _SIGNS.items() if word in words.split())
    for words in _SIGNS.values()
    for word in words.split()
}
_ACCENTS: Final = {
    **dict.fromkeys("àâ", frozenset({"fr", "pt"})),
    **dict.fromkeys("èëîïûùœÿ", frozenset({"fr"})),
    **dict.fromkeys("êôç", frozenset({"fr", "pt"})),
    **dict.fromkeys("áíóú", frozenset({"es", "pt"})),
    **dict.fromkeys("ñ¿¡", frozenset({"es"})),
    **dict.fromkeys("ãõ", frozenset({"pt"})),
    **dict.fromkeys("äöß", frozenset({"de"})),
    "ü": frozenset({"de", "es", "fr"}),
    "é": frozenset({"fr", "es", "pt"}),
}
_ANY_LATIN: Final = frozenset(LATIN)
_FEWEST_TO_TELL = 3
"""Fewer Latin words than this are not told apart."""
_NO_SIGN_IN = 5
"""So many Latin words without a common word of the expected language are doubtful."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What a blank-separated token counts for. Compared by identity, so counting them is cheap."""

    words: tuple[tuple[str, int], ...]
    """Kind and number."""
    latin: frozenset[str]
    """Languages that all its Latin words may belong to."""
    signs: frozenset[str]
    """Languages that one of its words is common in."""
    has_kana: bool
    long_run: bool


def _read(token: str) -> _Reading:
    words = list(_words(token))
    runs = [word for kind, word in words if kind == "cjk"]
    latin = [word.lower() for kind, word in words if kind == "latin"]
    return _Reading(
        words=tuple(Counter(kind for kind, _ in words).items()),
        latin=_ANY_LATIN.intersection(*map(_languages_of, latin)),
        signs=frozenset().union(*(_HINTS.get(word, ()) for word in latin)),
        has_kana=any(map(_KANA.search, runs)),
        long_run=any(len(run) > _MAX_HAN_WORD for run in runs),
    )


def _words(token: str) -> Iterator[tuple[str, str]]:
    """The words of a blank-separated token with their kind: ``latin``, ``cjk``, ``ko``."""
    formula = _FORMULA_TOKEN.search(token.strip("*_#~>|")) is not None
    for match in _WORD.finditer(token):
        kind, word = match.lastgroup or OTHER, match.group()
        if kind == "latin" and (formula or not _is_latin_word(word)):
            continue
        if kind == "cjk" and _HAN_NUMERALS.issuperset(word):
            continue
        if kind == OTHER and len(word) == 1:
            continue
        yield kind, word


def _is_latin_word(word: str) -> bool:
    """False for variables, acronyms and points (ABC), units (cm) and functions (sin)."""
    if len(word) == 1 or (len(word) <= 5 and word.isupper()):
        return False
    lower = word.lower()
    has_vowel = not lower.isascii() or not _VOWELS.isdisjoint(lower)
    return has_vowel and lower not in _FORMULA_WORDS


def _languages_of(word: str) -> frozenset[str]:
    """The Latin-script languages that a word may belong to, as far as it shows."""
    if word in _HINTS:
        return _HINTS[word]
    if word.isascii():
        return _ANY_LATIN
    return _ANY_LATIN.intersection(*(_ACCENTS[letter] for letter in word if letter in _ACCENTS))


_READINGS: Final[dict[str, _Reading]] = {}
_DISTINCT: Final[dict[tuple[object, ...], _Reading]] = {}
_MOST_READINGS = 50_000
_LONGEST_KEPT = 40


def _reading_of(token: str) -> _Reading:
    """The reading of a token, kept for the next time; bounded, because models make up words."""
    reading = _READINGS.get(token)
    if reading is None:
        reading = _read(token)
        if len(token) <= _LONGEST_KEPT and len(_READINGS) < _MOST_READINGS:
            reading = _READINGS[token] = _DISTINCT.setdefault(astuple(reading), reading)
    return reading


def language_share(text: str, target: str) -> float:
    """Share of the words of ``text`` in ``target``, 0…1; 1.0 where there are no words.

    Args:
        text: Usually a chain of thought. Any text at all, however long or broken.
        target: ISO 639-1 code, one of ``LANGUAGES``.

    Raises:
        ProblemError: ``target`` is none of them.
    """
    if target not in LANGUAGES:
        raise ProblemError(
            f"language consistency does not know the language {target!r}",
            f"Use one of {', '.join(LANGUAGES)}",
        )
    counts = count_words(text, target)
    total = counts.total()
    return counts[target] / total if total else 1.0


def dominant_language(text: str) -> tuple[str, float]:
    """The language that most words of ``text`` are in, and their share; ("", 1.0) without words."""
    counts = count_words(text)
    total = counts.total()
    if not total:
        return "", 1.0
    language, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    return language, most / total


def count_words(text: str, expected: str | None = None) -> Counter[str]:
    """Words by language. Where only one language occurs, runs without blanks stay uncut.

    Args:
        text: Any text.
        expected: The language the text should be in. Latin words without a sign of another
            language are taken for it; languages that are neither expected nor need telling apart
            from it may be lumped together.
    """
    prose = _NO_PROSE.sub(" ", text) if any(mark in text for mark in _NO_PROSE_MARKS) else text
    tokens = prose.split()
    found: Counter[_Reading | None] = Counter(map(_READINGS.get, tokens))
    if None in found:
        found = Counter(map(_reading_of, tokens))
    kinds: Counter[str] = Counter()
    doubtful = sign = has_kana = long_run = False
    latin = expected if expected in LATIN else "en"
    tell_latin_apart = expected is None or expected in LATIN
    for reading, times in found.items():
        assert reading is not None
        for kind, words in reading.words:
            kinds[kind] += words * times
        doubtful |= latin not in reading.latin
        sign |= latin in reading.signs
        has_kana |= reading.has_kana
        long_run |= reading.long_run
    doubtful = tell_latin_apart and (doubtful or (not sign and kinds["latin"] >= _NO_SIGN_IN))
    if doubtful or has_kana or (long_run and len(kinds) > 1):
        return _count_by_clause(prose, latin, doubtful=doubtful, japanese=has_kana)
    names = {"latin": latin, "cjk": "zh"}
    return Counter({names.get(kind, kind): words for kind, words in kinds.items()})


def _count_by_clause(text: str, latin: str, *, doubtful: bool, japanese: bool) -> Counter[str]:
    """Words by language where a script alone does not tell.

    Latin clauses too short to tell go with the next one, or with the last at the end.
    """
    counts: Counter[str] = Counter()
    waiting: list[str] = []
    for clause in _CLAUSE.split(text):
        words = [word for token in clause.split() for word in _words(token)]
        waiting += [word for kind, word in words if kind == "latin"]
        if len(waiting) >= _FEWEST_TO_TELL:
            if doubtful:
                latin = _detect_latin(" ".join(waiting))
            counts[latin] += len(waiting)
            waiting.clear()
        for is_cjk, group in groupby(words, key=lambda item: item[0] == "cjk"):
            if is_cjk:
                runs = [word for _, word in group]
                counts[_cjk_language(runs, japanese)] += sum(map(_count_cjk_words, runs))
            else:
                counts.update(kind for kind, _ in group if kind != "latin")
    counts[latin] += len(waiting)
    return +counts


def _cjk_language(runs: list[str], japanese: bool) -> str:
    joined = "".join(runs)
    if _KANA.search(joined):
        return "ja"
    return "ja" if japanese and len(joined) <= _MAX_KANJI_COMPOUND else "zh"


def _count_cjk_words(run: str) -> int:
    """How many words a run has: 我们需要 has two, 学生です has two."""
    if len(run) <= _MAX_HAN_WORD and not _KANA.search(run):
        return 1
    from icu4py.breakers import WordBreaker

    return sum(not _HAN_NUMERALS.issuperset(word) for word in WordBreaker(run, "zh"))


@cache
def _latin_detector() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE)
    detector.set_languages(LATIN)
    return detector


def _detect_latin(clause: str) -> str:
    return str(_latin_detector().classify(clause[:400])[0])
