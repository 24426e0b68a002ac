"""Any OpenAI-compatible endpoint behind the sampler's protocol, by its completions route.

Set by environment: ``R1_SAMPLER_URL`` (up to ``/v1``), ``R1_SAMPLER_MODEL`` (by default the path of
the checkpoint at hand, which is what ``vllm serve PATH`` calls it; ``{path}`` and ``{name}`` stand
for the checkpoint's path and folder name), optionally ``R1_SAMPLER_API_KEY``. An endpoint that
lists its models and does not have this one is refused: measuring another model than the one meant
is worse than an error.

Seeds are passed on: sample i of a request asks for seed + i, which is also how vLLM counts within
``n``. Whether the same seed gives the same completion is the engine's promise, not ours.
Log-probabilities are kept only where they mean what ``Completion`` says.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
from transformers import GenerationConfig, PreTrainedTokenizerBase

from services.config_engine import Endpoint
from services.errors import R1Error
from services.sampling import GroupDone, SampleRequest, SamplingSettings
from services.types import Completion

SEED_BITS: Final = 53
"""Whole numbers that every JSON reader keeps."""
WORTH_A_RETRY: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 30.0


class EndpointError(R1Error, RuntimeError):
    """An endpoint is not set up, cannot be reached, or refuses what it is asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is served."""

    url: str
    """Up to ``/v1``."""
    model: str
    api_key: str = ""
    tempered: bool = False
    """Its log-probabilities are those at the sampling temperature, not those before it."""

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def place_from_environment(checkpoint: Path) -> Place:
    """The endpoint that the environment names, for a checkpoint.

    Raises:
        EndpointError: It names none.
    """
    url = os.environ.get("R1_SAMPLER_URL", "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise EndpointError(
            "engine.sampler is openai, and no endpoint is named",
            "Set R1_SAMPLER_URL to an OpenAI-compatible address that ends in /v1",
        )
    pattern = os.environ.get("R1_SAMPLER_MODEL") or "{path}"
    model = pattern.replace("{path}", str(checkpoint)).replace("{name}", checkpoint.name)
    return Place(url, model, os.environ.get("R1_SAMPLER_API_KEY", ""))


class EndpointSampler:
    """Samples from an endpoint, several requests at a time.

    Args:
        place: Where the model is served.
        tokenizer: The checkpoint's own; counts tokens where the endpoint does not name them.
        settings: Concurrency, retries, patience.
        stop_ids: Tokens that end a sequence, for engines that can be told.
    """

    def __init__(
        self,
        place: Place,
        tokenizer: PreTrainedTokenizerBase,
        settings: Endpoint,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.place = place
        self.tokenizer = tokenizer
        self.settings = settings
        self.stop_ids = list(stop_ids)
        self._given_up = threading.Event()
        self._names_tokens: bool | None = None

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        group_done: GroupDone | None = None,
    ) -> list[list[Completion]]:
        """Completions per request, in the order asked for.

        Raises:
            EndpointError: The endpoint cannot be reached, serves another model, or refuses.
        """
        results: list[list[Completion]] = [[] for _ in requests]
        self._given_up.clear()
        with (
            httpx.Client(
                base_url=self.place.url,
                headers=self.place.headers,
                timeout=self.settings.timeout_seconds,
                limits=httpx.Limits(max_connections=self.settings.concurrency),
            ) as client,
            ThreadPoolExecutor(self.settings.concurrency, "sample") as pool,
        ):
            if self._names_tokens is None:
                self._names_tokens = self._look_around(client)
            waiting = {
                pool.submit(self._group, client, request, settings): place
                for place, request in enumerate(requests)
            }
            try:
                for future in as_completed(waiting):
                    place = waiting[future]
                    results[place] = future.result()
                    if group_done:
                        group_done(place, results[place])
            except BaseException:
                self._given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return results

    def _look_around(self, client: httpx.Client) -> bool:
        """Refuse an endpoint that lacks the model; say whether it has vLLM's extensions."""
        try:
            listed = self._send(client, "GET", "/models", None).get("data")
        except _NotThereError:
            return False
        models = listed if isinstance(listed, list) else []
        names = [str(model.get("id")) for model in models]
        if names and self.place.model not in names:
            raise EndpointError(
                f"{self.place.url} does not serve {self.place.model}, only {', '.join(names)}",
                "Serve that checkpoint, or say what it is called there with R1_SAMPLER_MODEL",
            )
        return any(model.get("owned_by") == "vllm" for model in models)

    def _group(
        self, client: httpx.Client, request: SampleRequest, settings: SamplingSettings
    ) -> list[Completion]:
        """All samples of one request; an engine that takes no ``n`` is asked again."""
        group: list[Completion] = []
        while len(group) < request.samples:
            body = self._body(request, settings, len(group))
            try:
                choices = self._send(client, "POST", "/completions", body)["choices"]
                ordered = sorted(choices, key=lambda choice: int(choice.get("index", 0)))
                new = [self._completion(choice, settings) for choice in ordered]
            except _NotThereError as error:
                raise EndpointError(
                    f"{self.place.url} has no completions route or no model {self.place.model}",
                    "Give the address up to /v1, and the model with R1_SAMPLER_MODEL",
                ) from error
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise self._unreadable(error) from error
            if not new:
                raise self._unreadable(ValueError("no choices"))
            group += new[: request.samples - len(group)]
        return group

    def _body(
        self, request: SampleRequest, settings: SamplingSettings, have: int
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.place.model,
            "prompt": request.prompt,
            "n": request.samples - have,
            "seed": (request.seed % (1 << SEED_BITS)) + have,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        if self._comparable(settings):
            body["logprobs"] = 1
        if self._names_tokens:
            prompt = self.tokenizer.encode(request.prompt, add_special_tokens=False)
            body |= {
                "prompt": prompt,
                "return_token_ids": True,
                "skip_special_tokens": False,
                "stop_token_ids": self.stop_ids,
            }
        return body

    def _comparable(self, settings: SamplingSettings) -> bool:
        """Whether log-probabilities of the engine would be those that ``Completion`` promises."""
        return settings.top_p == 1.0 and (self.place.tempered or settings.temperature == 1.0)

    def _completion(self, choice: Any, settings: SamplingSettings) -> Completion:
        truncated = choice.get("finish_reason") == "length"
        text = str(choice["text"])
        ids = choice.get("token_ids")
        if ids is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            if not truncated and self.tokenizer.eos_token_id is not None:
                ids = [*ids, int(self.tokenizer.eos_token_id)]
        else:
            # The end of the sequence is an event, not text, as with the local sampler.
            text = str(self.tokenizer.decode(ids if truncated else ids[:-1]))
        given = (choice.get("logprobs") or {}).get("token_logprobs") or []
        aligned = self._comparable(settings) and len(given) == len(ids) and None not in given
        logprobs = tuple(map(float, given)) if aligned else ()
        return Completion(text, tuple(map(int, ids)), logprobs, truncated)

    def _send(
        self, client: httpx.Client, method: str, route: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        """One request with its retries; the parsed answer."""
        wait, what = FIRST_WAIT_SECONDS, ""
        for tries_left in range(self.settings.retries, -1, -1):
            retry_after = ""
            try:
                response = client.request(method, route, json=body)
            except httpx.TransportError as error:
                what = f"{self.place.url} does not answer ({type(error).__name__}: {error})"
            else:
                if response.status_code not in WORTH_A_RETRY:
                    return self._answer(response)
                what = f"{self.place.url} answers {response.status_code}: {_message(response)}"
                retry_after = response.headers.get("Retry-After", "")
            if not tries_left:
                break
            pause = float(retry_after) if retry_after.isdigit() else wait
            if self._given_up.wait(min(pause, LONGEST_WAIT_SECONDS)):
                break  # another request failed for good; nobody waits for this one
            wait *= 2
        raise EndpointError(
            f"{what}, after {self.settings.retries + 1} tries",
            "Start the server, or correct R1_SAMPLER_URL; what is done so far is kept",
        )

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise EndpointError(
                f"{self.place.url} wants another key ({response.status_code})",
                "Set R1_SAMPLER_API_KEY",
            )
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise _NotThereError
        if response.is_error:
            raise EndpointError(
                f"{self.place.url} refuses the request ({response.status_code}): "
                f"{_message(response)}",
                "Change the recipe's lengths or sampling settings to what it allows",
            )
        try:
            answer = response.json()
        except ValueError as error:
            raise self._unreadable(error) from error
        if not isinstance(answer, dict):
            raise self._unreadable(TypeError("no object"))
        return answer

    def _unreadable(self, error: Exception) -> EndpointError:
        return EndpointError(
            f"{self.place.url} answers what is no list of completions ({error!r})",
            "Name an OpenAI-compatible address with R1_SAMPLER_URL",
        )


class _NotThereError(Exception):
    """The endpoint has no such route or model."""


def stop_ids_of(checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a sequence by the checkpoint's generation settings, else its tokenizer."""
    found: Any = tokenizer.eos_token_id
    if (checkpoint / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(checkpoint).eos_token_id
        found = configured if configured is not None else found
    if found is None:
        return []
    return [int(token) for token in (found if isinstance(found, list) else [found])]


def _message(response: httpx.Response) -> str:
    """What an error says, in one line."""
    try:
        body = response.json()
        error = body.get("error", body)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:300] or response.reason_phrase
