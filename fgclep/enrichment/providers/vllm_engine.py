"""A language model in this process, through vLLM: JSON guided by the schema, prefix caching, one call per slice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgclep.enrichment.prompts import ANSWER_SCHEMA, PROMPT_VERSION, build_messages
from fgclep.enrichment.providers.base import Reply, RunIdentity, Sampling
from fgclep.errors import FgclepError, NotSetUpError, UsageError

_MAX_MODEL_LEN = 2048  # instructions, the longest report and the answer


class VllmEngine:
    """A model that vLLM loads.

    Args:
        model: a directory or a hub id of an instruct model.
        sampling: how answers are drawn.
        engine: further arguments of `vllm.LLM`, such as `tensor_parallel_size` or `gpu_memory_utilization`.

    Raises:
        NotSetUpError: if vLLM is not installed or there is no such model.
        UsageError: if vLLM knows no such argument.
        FgclepError: if the engine does not start, most often for want of memory.
    """

    slice_size = 4096
    failure = ""

    def __init__(self, model: str, sampling: Sampling, engine: Mapping[str, Any]) -> None:
        try:
            from vllm import LLM, SamplingParams
            from vllm.exceptions import VLLMValidationError
            from vllm.sampling_params import StructuredOutputsParams
        except ImportError as error:
            raise NotSetUpError(
                f"vLLM cannot be imported ({error}).", "pip install 'fgclep[vllm]', or ask a server: --backend http"
            ) from error
        if Path(model).is_absolute() and not Path(model).is_dir():  # vLLM would take it for a misspelt hub id
            raise NotSetUpError(f"vLLM finds no model {model!r}: no such directory.", "--llm DIRECTORY or a hub id")
        self.identity = RunIdentity(PROMPT_VERSION, model, sampling)
        arguments = {"max_model_len": _MAX_MODEL_LEN, "enable_prefix_caching": True, "seed": sampling.seed, **engine}
        try:
            self._llm = LLM(model=model, **arguments)
        except OSError as error:
            raise NotSetUpError(f"vLLM finds no model {model!r}: {error}", "--llm DIRECTORY or a hub id") from error
        except TypeError as error:
            raise UsageError(
                f"vLLM refuses an argument: {error}.", "-o KEY=VALUE takes arguments of vllm.LLM"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise FgclepError(
                f"vLLM does not start {model!r}: {error}",
                "With too little memory: -o gpu_memory_utilization=0.9, -o max_model_len=1536, or a smaller model.",
            ) from error
        self._refusals = (ValueError, VLLMValidationError)
        self._params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed if sampling.temperature else None,  # a seed costs speed and greedy needs none
            structured_outputs=StructuredOutputsParams(json=ANSWER_SCHEMA),
        )

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        """Ask about all reports in one call; a report that vLLM refuses, most often as too long, stays unanswered."""
        conversations = [build_messages(report) for report in reports]
        try:
            outputs = self._llm.chat(conversations, self._params, use_tqdm=False)
        except self._refusals as error:  # of the whole call for one prompt that is too long: halve until it is alone
            if len(reports) == 1:
                self.failure = str(error)
                return [None]
            middle = len(reports) // 2
            return [*self.answer(reports[:middle]), *self.answer(reports[middle:])]
        return [_reply(output) for output in outputs]


def _reply(output: Any) -> Reply:
    best = output.outputs[0]
    return Reply(
        text=best.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        output_tokens=len(best.token_ids),
        cut=best.finish_reason == "length",
    )
