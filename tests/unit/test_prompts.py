"""How questions are put, in each format, with and without a model's chat template."""

from typing import get_args

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from services.config import Problems
from services.errors import RecipeError
from services.prompts import FORMATS, Format, Prompting, compose, final_answer, parse, r1_prompt
from services.recipes import load_recipe

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


def chat(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({"x": 0}, unk_token="x"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)


def test_the_paper_is_the_default() -> None:
    assert Prompting().prompt("2 + 2 ?") == r1_prompt("2 + 2 ?")
    assert Problems().format == Prompting().form
    assert get_args(Problems.model_fields["format"].annotation) == FORMATS


@pytest.mark.parametrize("form", FORMATS)
def test_prompt_asks_for_what_the_reward_wants(form: Format) -> None:
    prompt = Prompting(form).prompt("2 + 2 ?")
    assert prompt.count("2 + 2 ?") == 1
    assert ("\\boxed{" in prompt) == form.startswith("boxed")
    assert prompt.endswith("Assistant: <think>" if form.endswith("-open") else "Assistant:")


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_composed_is_taken_apart(form: Format) -> None:
    parsed = parse(compose("so it is", "4", form), form)
    assert parsed.violation is None
    assert (parsed.think.strip(), final_answer(parsed.answer)) == ("so it is", "4")


def test_chat_template_is_the_models_own() -> None:
    prompt = Prompting("boxed", chat(TEMPLATE)).prompt("2 + 2 ?")
    assert prompt.startswith("[user] 2 + 2 ?\n")
    assert "\\boxed{}" in prompt
    assert prompt.endswith("[assistant]")


@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_open_format_has_one_opening_whoever_writes_it(opening: str) -> None:
    prompt = Prompting("r1-open", chat(TEMPLATE + opening)).prompt("2 + 2 ?")
    assert prompt.rstrip().endswith("[assistant]<think>")


def test_template_that_opens_the_thought_needs_an_open_format() -> None:
    with pytest.raises(RecipeError, match=r"opens <think> itself.*problems\.format=r1-open"):
        Prompting("r1", chat(TEMPLATE + "<think>\n")).prompt("2 + 2 ?")


def test_model_without_a_chat_template_is_named() -> None:
    with pytest.raises(RecipeError, match="no chat template"):
        Prompting("r1", chat(None)).prompt("2 + 2 ?")


@pytest.mark.parametrize("change", ["problems.format='boxed'", "problems.chat=true"])
def test_general_prompts_know_one_format(change: str) -> None:
    with pytest.raises(RecipeError, match=r"problems\.general=false"):
        load_recipe("tiny", [change])
    assert load_recipe("tiny", [change, "problems.general=false"]).problems.general is False
