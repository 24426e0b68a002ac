"""The sampler for small machines: any Hugging Face causal model, decoded in this process.

Three things set it apart from ``generate``: a prompt is read once for its whole group, finished
sequences leave the batch, and every sequence has a random stream of its own. Log-probabilities are
those of the distribution that was drawn from, taken from the same logits.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.sampling import GroupDone, SampleRequest, SamplingSettings
from services.sampling.cache import GroupCache
from services.sampling.random_streams import stream_keys, uniforms
from services.types import Completion

SHRINK_BELOW = 0.8
"""Rows are dropped when less than this share of the batch still decodes: dropping copies."""


class _Decoded(NamedTuple):
    """Sampled ids, their log-probabilities, and whether the limit cut the sequence."""

    token_ids: list[int]
    logprobs: list[float]
    truncated: bool


class LocalSampler:
    """Decodes with ``model``; the caller may go on training it between calls.

    Args:
        model: A causal language model on its device.
        tokenizer: Its tokenizer, with a padding token.
        batch_size: Sequences decoded at a time, groups are never split.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 256
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        group_done: GroupDone | None = None,
    ) -> list[list[Completion]]:
        """Completions per request, in the order asked for."""
        was_training = self.model.training
        self.model.eval()
        ids = [self.tokenizer.encode(r.prompt, add_special_tokens=False) for r in requests]
        results: list[list[Completion]] = [[] for _ in requests]
        for batch in self._batches(requests):
            decoded = iter(
                self._decode([ids[i] for i in batch], [requests[i] for i in batch], settings)
            )
            for i in batch:
                rows = [next(decoded) for _ in range(requests[i].samples)]
                # The end of the sequence is an event, not text, whatever the tokenizer thinks.
                texts = self.tokenizer.batch_decode(
                    [row.token_ids if row.truncated else row.token_ids[:-1] for row in rows]
                )
                results[i] = [
                    Completion(text, tuple(row.token_ids), tuple(row.logprobs), row.truncated)
                    for text, row in zip(texts, rows, strict=True)
                ]
                if group_done:
                    group_done(i, results[i])
        self.model.train(was_training)
        return results

    def _batches(self, requests: Sequence[SampleRequest]) -> Iterator[list[int]]:
        batch: list[int] = []
        rows = 0
        for place, request in enumerate(requests):
            if batch and rows + request.samples > self.batch_size:
                yield batch
                batch, rows = [], 0
            batch.append(place)
            rows += request.samples
        if batch:
            yield batch

    def _decode(
        self,
        prompts: list[list[int]],
        requests: list[SampleRequest],
        settings: SamplingSettings,
    ) -> list[_Decoded]:
        """Decode one batch. Rows are numbered request by request, sample by sample."""
        device = self.model.device
        cache = GroupCache(self.model.config.num_hidden_layers)
        barred, hidden = self._prefill(prompts, cache)
        owner = torch.tensor(
            [i for i, r in enumerate(requests) for _ in range(r.samples)], device=device
        )
        cache.select(owner)
        barred, hidden = barred[owner], hidden[owner]
        position = (barred == 0).sum(1)
        keys = stream_keys(
            [r.seed for r in requests for _ in range(r.samples)],
            [s for r in requests for s in range(r.samples)],
        ).to(device)
        rows = torch.arange(len(owner), device=device)
        limit = settings.max_new_tokens
        tokens = torch.full((len(owner), limit), -1, device=device)
        logprobs = torch.zeros(len(owner), limit, device=device)
        stops = self._stop_ids().to(device)
        alive = torch.ones(len(owner), dtype=torch.bool, device=device)
        for step in range(limit):
            logits = self.model.get_output_embeddings()(hidden).float()
            chosen, chosen_logprobs = draw(logits, uniforms(keys, step), settings)
            tokens[rows[alive], step] = chosen[alive]
            logprobs[rows[alive], step] = chosen_logprobs[alive]
            alive &= ~torch.isin(chosen, stops)
            living = int(alive.sum())
            if living == 0 or step == limit - 1:
                break
            if living < SHRINK_BELOW * len(alive):
                kept = alive.nonzero().squeeze(1)
                cache.select(kept)
                rows, keys, barred, position, chosen, alive = (
                    x[kept] for x in (rows, keys, barred, position, chosen, alive)
                )
            barred = torch.cat([barred, barred.new_zeros(len(barred), 1)], dim=1)
            hidden = self._forward(chosen[:, None], barred[:, None, None], position[:, None], cache)
            position = position + 1
        return _rows(tokens, logprobs, stops)

    def _prefill(
        self, prompts: list[list[int]], cache: GroupCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read each prompt once.

        Returns:
            What to add to attention scores, ``(prompts, longest)``: 0 for real tokens and the least
            number for padding (a boolean mask would be converted in every layer at every token);
            and the last hidden states, ``(prompts, width)``.
        """
        device = self.model.device
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = True
        ids, mask = ids.to(device), mask.to(device)
        least = torch.finfo(self.model.dtype).min
        barred = torch.zeros(mask.shape, dtype=self.model.dtype, device=device)
        barred = barred.masked_fill(~mask, least)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        attention = barred[:, None, :].masked_fill(~causal, least)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return barred, self._forward(ids, attention[:, None], positions, cache)

    def _forward(
        self,
        ids: torch.Tensor,
        attention: torch.Tensor,
        positions: torch.Tensor,
        cache: GroupCache,
    ) -> torch.Tensor:
        """Hidden state of the last position, ``(rows, width)``."""
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state[:, -1]
        return hidden

    def _stop_ids(self) -> torch.Tensor:
        configured = (
            self.model.generation_config.eos_token_id if self.model.generation_config else None
        )
        found = configured if configured is not None else self.tokenizer.eos_token_id
        return torch.tensor(found if isinstance(found, list) else [found])


def draw(
    logits: torch.Tensor, numbers: torch.Tensor, settings: SamplingSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token per row by inverting the distribution function at the given numbers.

    Args:
        logits: ``(rows, vocabulary)``, float32.
        numbers: ``(rows,)`` uniforms in [0, 1).
        settings: Temperature and nucleus.

    Returns:
        Tokens and their log-probabilities at the temperature, before the nucleus, ``(rows,)`` each.
    """
    logprobs = torch.log_softmax(logits / settings.temperature, dim=-1)
    weights = logprobs.exp()
    if settings.top_p < 1.0:
        ordered, order = weights.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= settings.top_p
        weights = weights.scatter(-1, order, ordered.masked_fill(outside, 0.0))
    cumulative = weights.double().cumsum(-1)
    wanted = numbers * cumulative[:, -1]
    # A token of weight 0 can only be hit on a tie of floats; right=True passes over it.
    tokens = torch.searchsorted(cumulative, wanted[:, None], right=True).squeeze(1)
    tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)


def _rows(tokens: torch.Tensor, logprobs: torch.Tensor, stops: torch.Tensor) -> list[_Decoded]:
    lengths = (tokens >= 0).sum(1).tolist()
    stopping = set(stops.tolist())
    rows = []
    for ids, values, length in zip(tokens.tolist(), logprobs.tolist(), lengths, strict=True):
        sampled = ids[:length]
        rows.append(_Decoded(sampled, values[:length], sampled[-1] not in stopping))
    return rows
