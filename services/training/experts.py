"""What the routers of a mixture-of-experts model choose, counted during passes that run anyway.

A collapse of routing (few experts do all the work) does not show in a reward curve until late, so
load and entropy are logged at every step, apart for each kind of task. Nothing is computed for
dense models, and nothing is changed in any: hooks read a router's output and go again. Rows that
are not trained on are not seen; with several processes, those of the first are.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from services.training.alignment import Aligned

LISTED_EXPERTS = 64
"""Experts of all layers up to which each one's load is a metric of its own."""


def routers_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The routers of a model in the order of its layers; none for a dense one.

    ``transformers`` says itself which modules give router logits. Those that return
    ``(logits, weights, indices)`` are classes of their own named ``…Router``.
    """
    recorded = getattr(model, "_can_record_outputs", None) or {}
    target = getattr(recorded.get("router_logits"), "target_class", None)
    if target is None or not target.__name__.endswith("Router"):
        return []
    return [module for module in model.modules() if isinstance(module, target)]


class ExpertWatch:
    """Counts choices of experts by kind of task until they are taken.

    Load is the share of choices that fall on an expert; the loads of a layer sum to 1.

    Args:
        model: Any causal model.
        kinds: Names of the kinds of task that rows may have.
    """

    def __init__(self, model: torch.nn.Module, kinds: Iterable[str]) -> None:
        self.routers = routers_of(model)
        self.kinds = sorted(set(kinds))
        self._forget()

    def _forget(self) -> None:
        self._choices: torch.Tensor | None = None
        """``(kinds, layers, experts)``"""
        self._entropy = 0.0
        self._seen = 0

    def columns(self, kinds: Sequence[str]) -> dict[str, torch.Tensor]:
        """What a batch must carry to be watched: the kind of each row, where there are routers."""
        if not self.routers:
            return {}
        return {"kinds": torch.tensor([self.kinds.index(kind) for kind in kinds])}

    @contextmanager
    def over(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Count what is chosen at the completion tokens of a GRPO batch while the block runs."""
        if "kinds" not in inputs:
            yield
            return
        completions = inputs["completion_mask"]
        rows = Aligned(torch.cat([inputs["prompt_mask"], completions], 1), completions.shape[1])
        asked = torch.zeros_like(inputs["prompt_mask"])
        counted = rows.take(torch.cat([asked, completions], 1)).bool()
        with self.watching(counted, inputs["kinds"]):
            yield

    @contextmanager
    def watching(self, counted: torch.Tensor, kinds: torch.Tensor) -> Iterator[None]:
        """Count what forward passes inside the block choose.

        Args:
            counted: Which positions count, boolean ``(rows, width)``, the shape the passes read.
            kinds: Place of each row's kind among the names, ``(rows,)``.
        """
        codes = kinds[:, None].expand(counted.shape)[counted]
        hooks = [
            router.register_forward_hook(partial(self._note, layer, counted.flatten(), codes))
            for layer, router in enumerate(self.routers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _note(
        self, layer: int, counted: torch.Tensor, codes: torch.Tensor, router: Any, *passed: Any
    ) -> None:
        logits, indices = passed[-1][0][counted], passed[-1][-1][counted]
        experts = logits.shape[-1]
        shape = (len(self.kinds), len(self.routers), experts)
        if self._choices is None:
            self._choices = torch.zeros(shape, dtype=torch.int64)
        places = codes[:, None] * experts + indices
        found = torch.bincount(places.flatten(), minlength=shape[0] * experts)
        self._choices[:, layer] += found.reshape(-1, experts).cpu()
        self._entropy += float(routing_entropy(router, logits).sum())
        self._seen += len(logits)

    def loads(self) -> torch.Tensor | None:
        """Load of every expert over all kinds, ``(layers, experts)``; None if nothing was seen."""
        if self._choices is None or not self._seen:
            return None
        return _shares(self._choices.sum(0))

    def take(self) -> dict[str, float]:
        """Metrics of what was counted, and a fresh start; empty if nothing was.

        ``moe/load_max`` and ``_min`` are over all experts of all layers, ``moe/balance`` is 1 where
        a layer's experts are used alike and 0 where one does everything, ``moe/entropy`` is how
        undecided the routers are at a token (nats), ``moe/apart/KIND`` is the share of a kind's
        choices that would have to move to make its load that of all, and
        ``moe/load/KIND/LAYER.EXPERT`` are the loads themselves.
        """
        total = self.loads()
        if total is None or self._choices is None:
            return {}
        spread = -torch.special.xlogy(total, total).sum(1).mean()
        values = {
            "moe/load_max": float(total.max()),
            "moe/load_min": float(total.min()),
            "moe/balance": float(spread) / math.log(total.shape[1]),
            "moe/entropy": self._entropy / self._seen,
        }
        for kind, choices in zip(self.kinds, self._choices, strict=True):
            if not choices.any():
                continue
            loads = _shares(choices)
            values[f"moe/apart/{kind}"] = float((loads - total).abs().sum(1).mean() / 2)
            if loads.numel() <= LISTED_EXPERTS:
                values |= {
                    f"moe/load/{kind}/{layer}.{expert}": load
                    for layer, row in enumerate(loads.tolist())
                    for expert, load in enumerate(row)
                }
        self._forget()
        return values


def routing_entropy(router: Any, logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of a router's scores as shares, one per token.

    DeepSeek-V3 scores every expert by a sigmoid of its own; others by a softmax over all.
    """
    if hasattr(router, "e_score_correction_bias"):
        scores = logits.float().sigmoid()
        scores = scores / scores.sum(-1, keepdim=True)
    else:
        scores = logits.float().softmax(-1)
    surprise: torch.Tensor = torch.special.xlogy(scores, scores)
    return -surprise.sum(-1)


def _shares(choices: torch.Tensor) -> torch.Tensor:
    """Choices ``(layers, experts)`` as shares of their layer."""
    return choices / choices.sum(1, keepdim=True)
