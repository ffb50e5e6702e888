"""The curated knowledge base as a provider: offline, immediate, and the baseline for every language model."""

import json
from collections.abc import Sequence

from fgclep.enrichment.knowledge import features_of_report, knowledge_fingerprint
from fgclep.enrichment.providers.base import Reply, RunIdentity


class KnowledgeBase:
    """Answers with the waveform criteria of the findings that the tagger reads in a report."""

    slice_size = 5000
    failure = ""

    def __init__(self) -> None:
        self.identity = RunIdentity(prompt="", model=f"knowledge-base@{knowledge_fingerprint()}", sampling=None)

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        """Return the criteria for each report; a report without a known finding gets an empty list."""
        return [Reply(json.dumps({"features": features_of_report(report)})) for report in reports]
