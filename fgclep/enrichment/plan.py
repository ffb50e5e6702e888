"""What asking will cost, before anything is spent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fgclep.enrichment.prompts import MAX_REPORT_CHARS, build_messages
from fgclep.enrichment.worklist import Worklist

ASSUMED_OUTPUT_TOKENS = 100
"""Tokens of an answer where none is known yet: five to ten short phrases (ANCHORS 3e)."""

_CHARS_PER_TOKEN = 4
_CHUNK = 1000

CountTokens = Callable[[Sequence[str]], int]
"""Texts to the sum of their tokens."""


@dataclass(frozen=True)
class Plan:
    """What is to be asked and what it takes.

    Attributes:
        records: records looked at; `without_report` of them have nothing to ask about.
        answered: unique texts that the run has answers to.
        to_ask: unique texts that are left.
        shared_prompt_tokens: of the prompt without a report; a prefix cache computes most of them once.
        report_tokens: of all reports to ask about together.
        output_tokens_each: measured over the run's own answers, else assumed.
        measured: whether it was measured.
        tokenizer: which counted, or how it was estimated.
        hours: output tokens per second -> hours of generation.
    """

    records: int
    without_report: int
    unique_texts: int
    answered: int
    to_ask: int
    shared_prompt_tokens: int
    report_tokens: int
    output_tokens_each: float
    measured: bool
    tokenizer: str
    hours: dict[str, float]

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together, as a server without a prefix cache counts them."""
        return self.to_ask * self.shared_prompt_tokens + self.report_tokens

    @property
    def output_tokens(self) -> int:
        """Of all answers together."""
        return round(self.to_ask * self.output_tokens_each)


def make_plan(
    worklist: Worklist,
    answered: set[str],
    output_tokens_each: float | None,
    tokenizer: tuple[str, CountTokens],
    rates: Sequence[float],
) -> Plan:
    """Count what is left to ask.

    Args:
        worklist: the unique reports.
        answered: hashes that need no asking.
        output_tokens_each: measured mean; None assumes `ASSUMED_OUTPUT_TOKENS`.
        tokenizer: its name and count.
        rates: output tokens per second to give hours for.
    """
    left = [text for key, text in worklist.texts.items() if key not in answered]
    name, count = tokenizer
    each = ASSUMED_OUTPUT_TOKENS if output_tokens_each is None else output_tokens_each
    return Plan(
        records=worklist.records,
        without_report=worklist.without_report,
        unique_texts=len(worklist.texts),
        answered=len(worklist.texts) - len(left),
        to_ask=len(left),
        shared_prompt_tokens=count([message["content"] for message in build_messages("")]),
        report_tokens=_count_all(count, left),
        output_tokens_each=each,
        measured=output_tokens_each is not None,
        tokenizer=name,
        hours={f"{rate:g}": len(left) * each / rate / 3600 for rate in rates},
    )


def free_plan(worklist: Worklist, answered: set[str]) -> Plan:
    """Return the plan of a provider that generates nothing."""
    left = len(worklist.texts.keys() - answered)
    counts = worklist.records, worklist.without_report, len(worklist.texts), len(worklist.texts) - left, left
    return Plan(*counts, 0, 0, 0.0, True, "none: nothing is generated", {})


def estimate_tokens(texts: Sequence[str]) -> int:
    """Estimate tokens at four characters each."""
    return sum(-(-len(text) // _CHARS_PER_TOKEN) for text in texts)


def open_tokenizer(model: str) -> tuple[str, CountTokens]:
    """Return the model's own tokenizer as a counter, or an estimate where it is not at hand."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError):  # neither a directory nor to be had from the hub, or of an unknown kind
        return f"{_CHARS_PER_TOKEN} characters per token (no tokenizer of {model} at hand)", estimate_tokens

    def count(texts: Sequence[str]) -> int:
        encoded: Mapping[str, list[list[int]]] = tokenizer(list(texts), add_special_tokens=False)
        return sum(map(len, encoded["input_ids"]))

    return model, count


def _count_all(count: CountTokens, texts: Sequence[str]) -> int:
    stream = (text[:MAX_REPORT_CHARS] for text in texts)
    total = 0
    while chunk := list(islice(stream, _CHUNK)):
        total += count(chunk)
    return total
