"""Which provider, with which settings: the one door to all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fgclep.enrichment.prompts import PROMPT_VERSION
from fgclep.enrichment.providers.base import Provider, RunIdentity, Sampling
from fgclep.errors import NotSetUpError, UsageError


class Backend(StrEnum):
    """Kinds of provider."""

    KNOWLEDGE = "knowledge"
    VLLM = "vllm"
    HTTP = "http"
    REPLAY = "replay"


@dataclass(frozen=True)
class ProviderChoice:
    """A provider that is not opened yet.

    Attributes:
        llm: of `vllm` a directory or hub id, of `http` the server's name of the model.
        url: of `http`.
        key_file: of `http`: a file whose first line is the secret.
        answers: of `replay`.
        engine: of `vllm`: further arguments of its engine.
    """

    backend: Backend
    llm: str | None = None
    sampling: Sampling = Sampling()
    url: str = "http://127.0.0.1:8000/v1"
    key_file: Path | None = None
    concurrency: int = 16
    timeout_s: float = 120.0
    retries: int = 3
    answers: Path | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def generates(self) -> bool:
        """Tell whether a language model is asked, which takes tokens and time."""
        return self.backend in (Backend.VLLM, Backend.HTTP)

    def identity(self) -> RunIdentity:
        """Return under what the answers will be kept, without loading a model.

        Raises:
            UsageError: if what the backend needs was not said.
        """
        return RunIdentity(PROMPT_VERSION, self._llm(), self.sampling) if self.generates else self.open().identity

    def open(self) -> Provider:
        """Open the provider; a model is loaded now.

        Raises:
            UsageError: if what the backend needs was not said.
            NotSetUpError: if a package, model or file is missing.
        """
        if self.backend is Backend.KNOWLEDGE:
            from fgclep.enrichment.providers.knowledge_base import KnowledgeBase

            return KnowledgeBase()
        if self.backend is Backend.REPLAY:
            from fgclep.enrichment.providers.replay import Replay

            if self.answers is None:
                raise UsageError("backend replay needs recorded answers.", "--answers FILE")
            return Replay(self.answers)
        if self.backend is Backend.VLLM:
            from fgclep.enrichment.providers.vllm_engine import VllmEngine

            return VllmEngine(self._llm(), self.sampling, self.engine)
        from fgclep.enrichment.providers.openai_server import OpenAiServer

        return OpenAiServer(
            self._llm(),
            self.sampling,
            self.url,
            key=self._key(),
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            retries=self.retries,
        )

    def _llm(self) -> str:
        if not self.llm:
            raise UsageError(f"backend {self.backend} needs a language model.", "--llm NAME")
        return self.llm

    def _key(self) -> str | None:
        if self.key_file is None:
            return None
        try:
            lines = self.key_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise NotSetUpError(f"{self.key_file} holds no readable key: {error}.", "--key-file PATH") from error
        return lines[0].strip() or None
