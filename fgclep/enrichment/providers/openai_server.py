"""Any server that speaks OpenAI's chat completions: `vllm serve`, llama.cpp, `transformers serve` and others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import TYPE_CHECKING, Any

from fgclep.enrichment.prompts import ANSWER_SCHEMA, PROMPT_VERSION, build_messages
from fgclep.enrichment.providers.base import Reply, RunIdentity, Sampling
from fgclep.errors import FgclepError, NotSetUpError, UsageError

if TYPE_CHECKING:
    from openai import OpenAI

_RESPONSE_FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "waveform_features", "schema": ANSWER_SCHEMA, "strict": True},
}


class OpenAiServer:
    """A model behind HTTP.

    Retries after refused connections, overload and server errors with growing pauses are the client library's.

    Args:
        model: the name the server knows it by.
        sampling: how answers are drawn.
        url: the server's base, such as http://127.0.0.1:8000/v1.
        key: secret; None takes OPENAI_API_KEY, or none where that is not set.
        concurrency: requests under way at once.
        timeout_s: how long to wait for one answer.
        retries: how often one request is repeated.

    Raises:
        NotSetUpError: if the client library is not installed.
    """

    slice_size = 256
    failure = ""

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        url: str,
        *,
        key: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        retries: int = 3,
    ) -> None:
        self.identity = RunIdentity(PROMPT_VERSION, model, sampling)
        self._sampling = sampling
        self._url = url
        self._concurrency = concurrency
        self._client = _open_client(url, key, timeout_s, retries)

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        """Ask about the reports, several at once; a request that fails for good leaves its report unanswered.

        Raises:
            UsageError: if the server refuses the key or the model.
            FgclepError: if the server cannot be reached.
        """
        stop = Event()
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(self._ask, report, stop) for report in reports]
            try:
                wait(futures)
            except KeyboardInterrupt:
                stop.set()  # else leaving the pool would wait for the whole slice
                raise
        failures = [error for future in futures if (error := future.exception()) is not None]
        replies = [None if future.exception() else future.result() for future in futures]
        # Answers that came before the server went away are worth keeping; the next slice tells of the failure.
        if failures and not any(replies):
            raise failures[0]
        if failures:
            self.failure = str(failures[0])
        return replies

    def _ask(self, report: str, stop: Event) -> Reply | None:
        """Ask about one report, unless another request found that asking is of no use."""
        import openai

        if stop.is_set():
            return None
        try:
            return self._complete(report)
        except openai.APITimeoutError as error:
            self.failure = error.message
        except openai.APIConnectionError as error:
            stop.set()
            raise FgclepError(
                f"{self._url} cannot be reached ({error.__cause__ or error}); answers so far are kept.",
                "Start the server, then repeat the command.",
            ) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            stop.set()
            raise UsageError(
                f"{self._url} refuses the model {self.identity.model!r}: {error.message}",
                "--llm NAME as the server lists it, --url URL ending in /v1, --key-file PATH",
            ) from error
        except openai.BadRequestError as error:  # it may be this report only, for one because it is too long
            self.failure = f"{self._url} refuses the request: {error.message}"
        except (openai.APIError, ValueError, RecursionError) as error:
            self.failure = str(error)  # a fault that outlasted the retries; a body that no parser reads
        return None

    def _complete(self, report: str) -> Reply:
        sampling = self._sampling
        messages: Any = build_messages(report)
        completion = self._client.chat.completions.create(
            model=self.identity.model,
            messages=messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            response_format=_RESPONSE_FORMAT,
        )
        return _reply(completion)


def _open_client(url: str, key: str | None, timeout_s: float, retries: int) -> "OpenAI":
    try:
        import openai
    except ImportError as error:
        raise NotSetUpError(
            f"the client library for language model servers cannot be imported ({error}).",
            "pip install 'fgclep[server]'",
        ) from error
    try:
        return openai.OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=retries)
    except openai.OpenAIError:  # neither a key nor OPENAI_API_KEY: most local servers ask for none
        return openai.OpenAI(base_url=url, api_key="none", timeout=timeout_s, max_retries=retries)


def _reply(completion: Any) -> Reply:
    """Read a completion; a server that leaves parts out, or sends something else, gave an empty answer."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        return Reply("")
    text = getattr(getattr(choices[0], "message", None), "content", None)
    usage = getattr(completion, "usage", None)
    return Reply(
        text=text if isinstance(text, str) else "",
        prompt_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cut=getattr(choices[0], "finish_reason", None) == "length",
    )


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) else 0
