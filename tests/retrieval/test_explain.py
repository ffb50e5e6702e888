"""Evidence is added to the hits there are, and what cannot be read is told."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.open import OpenIndex
from retrieval.evidence import LeadEvidence
from retrieval.explain import explain
from retrieval.query import Query
from retrieval.searcher import Searcher
from retrieval.tables import csv_text
from tests.retrieval.fakes import FakeEncoder


class Reader:
    """Names V2 for every record, except for those that it cannot read."""

    def __init__(self, *unreadable: str) -> None:
        self.unreadable = unreadable

    def read(self, row: Mapping[str, Any], text_vector: NDArray[np.float32]) -> tuple[LeadEvidence, ...] | None:
        assert text_vector.shape == (4,)
        return None if row["record_id"] in self.unreadable else (LeadEvidence("V2", 0.4, 1.0, 2.5),)


def test_hits_keep_their_order_and_gain_their_leads(index: OpenIndex, encoder: FakeEncoder) -> None:
    result = Searcher(index, encoder).search(Query("1 0 0 0", limit=4))
    vector = encoder.encode_text("1 0 0 0")
    lost = result.hits[1].row["record_id"]
    told = explain(result, Reader(lost), vector)  # type: ignore[arg-type]
    assert [len(hit.evidence) for hit in told.hits] == [1, 0, 1, 1]
    assert tuple(replace(hit, evidence=()) for hit in told.hits) == result.hits
    assert told.notes[:-1] == result.notes
    assert "1 of 4 hits" in told.notes[-1] and index.manifest.dataset.root in told.notes[-1]
    assert explain(result, Reader(), vector).notes == result.notes  # type: ignore[arg-type]
    table = csv_text([hit.to_dict() for hit in told.hits], ["evidence"])
    assert table.splitlines() == ["evidence", "V2 0.4 1.0 2.5", '""', "V2 0.4 1.0 2.5", "V2 0.4 1.0 2.5"]
