"""The tokenizer of the small world: one word, one token.

The whole preamble of the R1 template is a single added token, so the true prompt of the paper costs
a small model one position. Decoding joins words with blanks, so text survives a round trip.
"""

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from services.prompts import R1_PREAMBLE, R1_TURN
from services.smallworld.phrases import PHRASES
from services.tasks.general import WORDS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}")
MAX_VALUE = 54
"""Six nines: the largest value an attempt can have; the smallest is 1 − 45 = −44."""


def vocabulary() -> list[str]:
    """Every word of the small world; an order of the words, not of the source that names them."""
    words = [PAD, EOS, UNKNOWN, *TAGS, R1_TURN]
    words += [str(value) for value in range(-MAX_VALUE, MAX_VALUE + 1)]
    words += [f"={value}" for value in range(-MAX_VALUE, MAX_VALUE + 1)]
    words += [f"{sign}{digit}" for sign in "+-" for digit in range(1, 10)]
    said = {word for phrases in (*PHRASES.values(), *WORDS.values()) for word in _words(phrases)}
    return list(dict.fromkeys([*words, *sorted(said)]))


def _words(value: object) -> list[str]:
    """All words in a nested tuple of phrases, without the ``{fields}`` to fill in."""
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    return [word for word in str(value).split() if "{" not in word]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; the same words give the same ids on every machine."""
    ids = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_tokens([AddedToken(R1_PREAMBLE, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
