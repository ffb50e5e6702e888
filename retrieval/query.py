"""What a user asks: a text, example ECGs, filters, and how many hits."""

from dataclasses import dataclass, field

from fgclep.errors import UsageError
from retrieval.filters import Filters


@dataclass(frozen=True)
class Query:
    """One question to an index, checked when made.

    Attributes:
        text: a finding in words; None to search by example only.
        like: REFs of example ECGs (see `retrieval.refs`). Text and examples are combined as the mean of their unit
            vectors.
        limit: hits wanted; more than the index holds is fine.
        filters: conditions that a record must meet before it is ranked.
        per_patient: keep at most this many hits of one patient.
        min_score: keep only hits with at least this calibrated score, 0 to 1.
    """

    text: str | None = None
    like: tuple[str, ...] = ()
    limit: int = 10
    filters: Filters = field(default_factory=Filters)
    per_patient: int | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise UsageError("The query is empty; expected a finding in words.", 'fgclep search "low QRS voltage"')
        if self.text is None and not self.like:
            raise UsageError(
                "There is nothing to search for: expected a text, --like REF, or both.",
                'fgclep search "low QRS voltage"',
            )
        if self.limit < 1:
            raise UsageError(f"{self.limit} hits were asked for; at least 1 is needed.", "-n 10")
        if self.per_patient is not None and self.per_patient < 1:
            raise UsageError(f"--per-patient is {self.per_patient}, expected 1 or more.", "--per-patient 1")
        if self.min_score is not None and not 0.0 <= self.min_score <= 1.0:
            raise UsageError(f"--min-score is {self.min_score:g}, expected a number from 0 to 1.", "--min-score 0.5")
        if self.min_score is not None and self.like:
            raise UsageError(
                "--min-score needs a query of text alone: scores are calibrated for text, not for example ECGs.",
                "Drop --min-score or --like.",
            )

    def to_dict(self) -> dict[str, object]:
        """Return the query as it stands in JSON output."""
        return {
            "text": self.text,
            "like": list(self.like),
            "limit": self.limit,
            "filters": self.filters.given(),
            "per_patient": self.per_patient,
            "min_score": self.min_score,
        }
