"""What every provider offers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sampling:
    """How a language model draws its answer; greedy unless told.

    Attributes:
        temperature: 0 takes the likeliest token.
        max_tokens: an answer that reaches this is cut and counted as too long.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 320
    seed: int = 0


@dataclass(frozen=True)
class RunIdentity:
    """Under what answers are kept: another prompt, model or sampling is another run.

    Attributes:
        prompt: version of the prompt; empty where nothing is prompted.
        model: name of the model.
        sampling: None where nothing is sampled.
    """

    prompt: str
    model: str
    sampling: Sampling | None

    @property
    def key(self) -> str:
        """16 hexadecimal digits, the same on every machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Reply:
    """What came back for one report.

    Attributes:
        cut: the answer reached `max_tokens`.
    """

    text: str
    prompt_tokens: int = 0
    output_tokens: int = 0
    cut: bool = False


class Provider(Protocol):
    """Answers for reports, slice by slice."""

    @property
    def identity(self) -> RunIdentity:
        """Under what the answers are kept."""
        ...

    @property
    def slice_size(self) -> int:
        """How many reports are best handed over at once."""
        ...

    @property
    def failure(self) -> str:
        """Why the last report without a reply has none; empty where that is not known."""
        ...

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        """Ask for the features of each report.

        Args:
            reports: normalised texts.

        Returns:
            As many replies in the same order; None where none could be had, to be asked again in another run.

        Raises:
            FgclepError: if the provider cannot work at all.
        """
        ...
