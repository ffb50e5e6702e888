"""Which leads are named for a hit: against maps whose answer is known, and where the waveform has gone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fgclep.errors import NotSetUpError
from fgclep.evidence import evidence
from fgclep.leads import LEADS
from fgclep.pretrained import load_model
from retrieval.evidence import EvidenceReader, strongest_leads


def _map(**by_lead: list[float]) -> Any:
    evidence = np.full((12, 4), -0.1, np.float32)
    for lead, windows in by_lead.items():
        evidence[LEADS.index(lead)] = windows
    return evidence


def test_leads_are_named_strongest_first_down_to_half_of_the_best() -> None:
    found = strongest_leads(_map(V2=[0, 0, 3, 1], V3=[1, 3, 1, 1], II=[0, 2, 1, 0], aVL=[1, 0, 0, 0]), seconds=10)
    assert [lead.lead for lead in found] == ["V3", "V2", "II"]
    assert [lead.share for lead in found] == [0.4286, 0.2857, 0.2143]  # of 6 + 4 + 3 + 1
    assert [(lead.from_s, lead.to_s) for lead in found] == [(2.5, 5.0), (5.0, 7.5), (2.5, 5.0)]


def test_no_lead_is_named_where_all_speak_against_the_text() -> None:
    assert strongest_leads(_map(), seconds=10) == ()


def test_a_record_that_cannot_be_read_has_no_evidence(tiny_bundle: Path) -> None:
    def gone(row: Any) -> Any:
        raise NotSetUpError("the data has moved")

    reader: Any = SimpleNamespace(read=gone)
    assert EvidenceReader(tiny_bundle, reader).read({}, np.ones(16, np.float32)) is None


def test_a_bundle_without_a_head_is_asked_as_a_whole(tiny_bundle: Path) -> None:
    from fgclep.datasets.synthetic import generate_one
    from fgclep.preprocessing import EcgProcessor

    record, model = generate_one(5, 3, fs_hz=100).record, load_model(tiny_bundle)
    reader: Any = SimpleNamespace(read=lambda row: record)
    found = EvidenceReader(tiny_bundle, reader).read({}, model.encode_text(["low qrs voltage"])[0])
    prepared = EcgProcessor.from_pretrained(tiny_bundle).prepare(record.waveform, record.fs_hz)
    assert found == strongest_leads(evidence(model, prepared, "low qrs voltage"), seconds=10)
