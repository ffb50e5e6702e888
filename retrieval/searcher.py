"""Answer a query: encode, filter, search exactly, group by patient, join with what is known.

Filters are applied before the search: they become a mask over the index's rows, and only those rows are ranked.
Scores are per hit (calibrated probability) and percentiles refer to the whole corpus, so neither depends on which
other hits are shown.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.open import OpenIndex
from retrieval.encoder import QueryEncoder, Vector
from retrieval.query import Query
from retrieval.ranking import Ranking
from retrieval.refs import resolve_ref
from retrieval.waveforms import read_file

if TYPE_CHECKING:
    from retrieval.evidence import LeadEvidence

WEAK_SCORE = 0.2
"""A best hit scored below this is told to be weak: the finding is at least four times likelier absent than present."""

_IDENTITY = ("rank", "record", "subject_id", "study_id", "similarity", "score", "percentile")
_FIELDS = (
    "path", "dataset", "fold", "ecg_time", "age_years", "sex", "heart_rate_bpm", "rr_interval_ms", "pr_interval_ms",
    "qrs_duration_ms", "qt_interval_ms", "qtc_ms", "p_axis_deg", "qrs_axis_deg", "t_axis_deg", "fs_hz", "duration_s",
)  # fmt: skip

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Hit:
    """One record found.

    Attributes:
        rank: from 1.
        similarity: cosine of query and record.
        score: calibrated probability that the finding is present, were it as common as the bundle's calibration says
            (5 %); None where the query is not text alone.
        percentile: share of the whole corpus that is less similar, 0 to 100.
        row: the record's columns of the store and its `tags`.
        evidence: the leads that show the query's text, the strongest first; empty unless explained.
    """

    rank: int
    similarity: float
    score: float | None
    percentile: float
    row: Row
    evidence: "tuple[LeadEvidence, ...]" = ()

    @staticmethod
    def columns() -> list[str]:
        """Return the names of `to_dict`, in order."""
        return [*_IDENTITY, *_FIELDS, "flags", "tags", "report", "evidence"]

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as it stands in JSON output; field names are the store's column names."""
        values = (
            self.rank,
            self.row["record_id"],
            self.row["subject_id"],
            self.row["study_id"],
            round(self.similarity, 6),
            None if self.score is None else round(self.score, 6),
            round(self.percentile, 4),
            *(self.row[name] for name in _FIELDS),
            self.row["flags"].splitlines(),
            list(self.row["tags"]),
            self.row["report"],
            [lead.to_dict() for lead in self.evidence],
        )
        return dict(zip(self.columns(), values, strict=True))


@dataclass(frozen=True)
class Result:
    """The answer to one query.

    Attributes:
        plan: how the query became one vector, in words.
        considered: records that passed the filters and were ranked.
        total: records in the index.
        notes: what the user should be told besides the hits.
        index: name, version, model fingerprint and data root.
    """

    query: Query
    plan: str
    considered: int
    total: int
    hits: tuple[Hit, ...]
    notes: tuple[str, ...]
    index: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the result in the JSON schema of `search` (schema 1)."""
        return {
            "schema": 1,
            "query": {**self.query.to_dict(), "plan": self.plan},
            "index": dict(self.index),
            "considered": self.considered,
            "total": self.total,
            "notes": list(self.notes),
            "hits": [hit.to_dict() for hit in self.hits],
        }


class Searcher:
    """Searches one open index.

    Args:
        index: the index.
        encoder: the model that built it.
    """

    def __init__(self, index: OpenIndex, encoder: QueryEncoder) -> None:
        self._index = index
        self._encoder = encoder

    def search(self, query: Query) -> Result:
        """Answer a query.

        Raises:
            UsageError: if a filter or a REF cannot be understood.
            CompatibilityError: if the model is not the index's.
        """
        allowed = self._allowed_rows(query)
        vector, plan, examples = self._encode(query)
        if examples:
            allowed[examples] = False
        considered = int(allowed.sum())
        hits = self._hits(query, vector, allowed, considered) if considered else ()
        notes = _notes(query, hits, considered)
        if considered == 0:
            from retrieval.conditions import why_nothing

            notes += why_nothing(self._index.store, query.filters)
        manifest = self._index.manifest
        return Result(
            query=query,
            plan=plan,
            considered=considered,
            total=len(self._index.keys),
            hits=hits,
            notes=tuple(notes),
            index={
                "name": manifest.name,
                "version": manifest.version,
                "model_fingerprint": manifest.model.fingerprint,
                "data_root": manifest.dataset.root,
            },
        )

    def _allowed_rows(self, query: Query) -> NDArray[np.bool_]:
        """Return which rows of the index pass the filters, bool (N,)."""
        condition = query.filters.condition()
        keys = self._index.keys
        if condition is None:
            return np.ones(len(keys), np.bool_)
        from retrieval.conditions import matching_keys

        return np.isin(keys, matching_keys(self._index.store, condition))

    def _encode(self, query: Query) -> tuple[Vector, str, list[int]]:
        """Return the query's unit vector (D,), how it was made, and the rows of its own examples."""
        vectors: list[Vector] = []
        parts: list[str] = []
        examples: list[int] = []
        if query.text is not None:
            vectors.append(self._encoder.encode_text(query.text.strip()))
            parts.append(f"text {query.text.strip()!r}")
        for ref in query.like:
            target = resolve_ref(self._index, ref)
            if isinstance(target, int):
                row = int(np.searchsorted(self._index.keys, target))
                examples.append(row)
                vectors.append(np.asarray(self._index.vectors[row], np.float32))
                parts.append(f"the ECG {ref}")
            else:
                vectors.append(self._encoder.encode_record(read_file(target)))
                parts.append(f"the ECG file {ref}")
        left_out = "; examples are left out of the hits" if examples else ""
        if len(vectors) == 1:
            return vectors[0], parts[0] + left_out, examples
        mean = np.mean(vectors, axis=0)
        # Opposite vectors may cancel; then every record is equally (un)like the query.
        unit = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
        return unit, f"mean of the unit vectors of {' and '.join(parts)}{left_out}", examples

    def _hits(self, query: Query, vector: Vector, allowed: NDArray[np.bool_], considered: int) -> tuple[Hit, ...]:
        """Rank the allowed rows and describe those that stay."""
        ranking = Ranking(self._index.vectors, vector, allowed, self._index.codes)
        rows, similarities, known = self._best(query, ranking, considered)
        percentiles = ranking.percentiles(similarities)
        scores = self._encoder.score(similarities) if not query.like else None
        return tuple(
            Hit(
                rank=number + 1,
                similarity=float(similarities[number]),
                score=None if scores is None else float(scores[number]),
                percentile=float(percentiles[number]),
                row=known[int(self._index.keys[row])],
            )
            for number, row in enumerate(rows)
        )

    def _best(
        self, query: Query, ranking: Ranking, considered: int
    ) -> tuple[NDArray[np.int64], Vector, dict[int, Row]]:
        """Return the rows to show in order, their similarities, and their rows of the store by key.

        Grouping and the score limit drop candidates, so more are fetched until enough stay or none are left.
        """
        known: dict[int, Row] = {}
        wanted = min(query.limit, considered)
        fetched = wanted if query.per_patient is None else min(2 * wanted, considered)
        while True:
            similarities, rows = ranking.top(fetched)
            exhausted = fetched >= considered
            if query.min_score is not None:
                passing = self._encoder.score(similarities) >= query.min_score
                # Scores fall with similarity: behind the first that fails no other passes.
                exhausted = exhausted or not passing.all()
                similarities, rows = similarities[passing], rows[passing]
            keys = self._index.keys[rows]
            known.update(self._index.store.records([int(key) for key in keys if int(key) not in known]))
            kept = _keep_per_patient([known[int(key)] for key in keys], query.per_patient)[: query.limit]
            if len(kept) >= wanted or exhausted:
                return rows[kept], similarities[kept], known
            fetched = min(2 * fetched, considered)


def _keep_per_patient(rows: list[Row], per_patient: int | None) -> list[int]:
    """Return the positions that stay when each patient keeps at most `per_patient` hits, the best first."""
    if per_patient is None:
        return list(range(len(rows)))
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for position, row in enumerate(rows):
        patient = (row["dataset"], row["subject_id"])
        seen[patient] += 1
        if seen[patient] <= per_patient:
            kept.append(position)
    return kept


def _notes(query: Query, hits: tuple[Hit, ...], considered: int) -> list[str]:
    """Say why there are fewer hits than asked for, and whether the best one means anything."""
    notes = []
    if len(hits) < query.limit:
        notes.append(f"{len(hits)} of {query.limit}: {_shortfall(query, len(hits), considered)}.")
    if hits and hits[0].score is not None and hits[0].score < WEAK_SCORE:
        notes.append(
            f"No likely hit for {query.text!r}: the best score is {hits[0].score:.2f}, so even the first one rather "
            "lacks the finding than shows it."
        )
    return notes


def _shortfall(query: Query, found: int, considered: int) -> str:
    """Name the condition that left fewer hits than were asked for."""
    records = f"{considered} record{'s' if considered != 1 else ''}"
    if considered == 0 and query.filters.given():
        return "no record matches the filters"
    if considered == found:
        match = "match the filters" if considered != 1 else "matches the filters"
        return f"only {records} {match}" if query.filters.given() else f"the index holds only {records} to rank"
    limits = []
    if query.min_score is not None:
        limits.append(f"score at least {query.min_score:g}")
    if query.per_patient is not None:
        limits.append(f"at most {query.per_patient} per patient")
    return f"of {records} considered, the rest fail: {', '.join(limits)}"
