"""Pretraining of the bundled base models: next-word prediction on the small world's documents.

A plain loop, because there is nothing here for a trainer to do: one process, fresh documents at
every step, no evaluation, no resume. Questions are not trained on (their numbers are random), only
what follows ``Assistant:``. Batches are made of documents of like length.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from services.pretraining.moe import Balance, MoEShape, moe_config
from services.prompts import r1_prompt
from services.smallworld.corpus import Document, documents

POOL_BATCHES = 32
IGNORE = -100


class Shape(NamedTuple):
    """Size of a small Llama."""

    layers: int
    width: int
    heads: int
    intermediate: int

    def __str__(self) -> str:
        return f"{self.layers}-layer Llama of width {self.width}"


BASE_SHAPE = Shape(layers=4, width=128, heads=4, intermediate=384)
STUDENT_SHAPE = Shape(layers=2, width=80, heads=4, intermediate=240)
MOE_SHAPE = MoEShape(
    layers=3,
    width=96,
    heads=4,
    intermediate=256,
    dense_layers=1,
    experts=8,
    chosen=2,
    expert_intermediate=64,
    query_rank=48,
    key_value_rank=32,
    plain_dims=12,
    rotary_dims=12,
    value_dims=24,
)


class PretrainProgress(NamedTuple):
    """What the caller is told now and then."""

    step: int
    loss: float
    tokens: int


def new_model(
    shape: Shape | MoEShape, tokenizer: PreTrainedTokenizerFast, seed: int, positions: int = 512
) -> LlamaForCausalLM | DeepseekV3ForCausalLM:
    """A freshly initialised model for the small world's vocabulary."""
    torch.manual_seed(seed)
    if isinstance(shape, MoEShape):
        return DeepseekV3ForCausalLM(moe_config(shape, tokenizer, positions))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM | DeepseekV3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    report: Callable[[PretrainProgress], None],
) -> None:
    """Train ``model`` in place with AdamW, a short warm-up and a cosine down to a hundredth."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    balance = Balance(model)
    tokens = 0
    for step, (inputs, labels) in enumerate(
        itertools.islice(_batches(tokenizer, seed, batch_size), steps)
    ):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        with balance.counting(labels != IGNORE):
            hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
        kept = labels[:, 1:] != IGNORE
        loss = cross_entropy(model.lm_head(hidden[kept]), labels[:, 1:][kept])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        balance.step()
        tokens += int(kept.sum())
        if step % 100 == 99 or step == steps - 1:
            report(PretrainProgress(step + 1, loss.item(), tokens))
    model.train(False)


def _schedule(step: int, steps: int) -> float:
    warmup = min(1.0, (step + 1) / 200)
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Right-padded batches: ids and labels, both ``(batch, longest)``."""
    source = documents(seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        pool = list(itertools.islice(source, batch_size * POOL_BATCHES))
        rows = sorted((_encode(tokenizer, document) for document in pool), key=_row_length)
        for place in torch.randperm(POOL_BATCHES, generator=generator).tolist():
            yield _pad(rows[place * batch_size : (place + 1) * batch_size], tokenizer)


def _encode(tokenizer: PreTrainedTokenizerFast, document: Document) -> tuple[list[int], int]:
    prompt = tokenizer.encode(r1_prompt(document.question), add_special_tokens=False)
    completion = tokenizer.encode(document.completion, add_special_tokens=False)
    return [*prompt, *completion, int(tokenizer.eos_token_id)], len(prompt)


def _row_length(row: tuple[list[int], int]) -> int:
    return len(row[0])


def _pad(
    rows: list[tuple[list[int], int]], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(_row_length, rows))
    inputs = torch.full((len(rows), longest), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), longest), IGNORE)
    for place, (ids, prompt_length) in enumerate(rows):
        row = torch.tensor(ids)
        inputs[place, : len(ids)] = row
        labels[place, prompt_length : len(ids)] = row[prompt_length:]
    return inputs, labels
