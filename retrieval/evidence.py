"""Which leads carry the evidence for a hit: computed for the hits shown, from their waveforms."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import FgclepError
from fgclep.leads import LEADS

if TYPE_CHECKING:
    from retrieval.waveforms import WaveformReader

Array = NDArray[np.float32]

LEAST_SHARE_OF_BEST = 0.5
"""A lead is named if its evidence is at least so much of the strongest lead's."""


@dataclass(frozen=True)
class LeadEvidence:
    """One lead that carries evidence for the query.

    Attributes:
        lead: its name.
        share: of the evidence of all leads that speak for the query, 0 to 1.
        from_s, to_s: the lead's strongest window, in seconds from the start of what the model sees of the ECG.
    """

    lead: str
    share: float
    from_s: float
    to_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in JSON output."""
        return asdict(self)


class _Mapper(Protocol):
    def evidence_maps(self, prepared: Array, text_vectors: Array) -> Array: ...


class EvidenceReader:
    """Tells which leads of an indexed record show a text.

    The bundle's tag head runs in numpy. A bundle without one that numpy understands is loaded as a whole, which takes
    seconds, and one without any is asked by occlusion (see `fgclep.evidence`), which takes about a second per record.

    Args:
        bundle: the model bundle that built the index.
        waveforms: reads the records.
    """

    def __init__(self, bundle: Path, waveforms: "WaveformReader") -> None:
        from fgclep.preprocessing import EcgProcessor

        self._waveforms = waveforms
        self._processor = EcgProcessor.from_pretrained(bundle)
        self._mapper = _mapper(bundle)

    def read(self, row: Mapping[str, Any], text_vector: Array) -> tuple[LeadEvidence, ...] | None:
        """Return the leads that carry the evidence, the strongest first.

        Args:
            row: the record's row of the store.
            text_vector: of the query, float32 (D,), unit norm.

        Returns:
            None if the record cannot be read where the index says it is.
        """
        try:
            record = self._waveforms.read(row)
        except (FgclepError, OSError):
            return None
        prepared = self._processor.prepare(record.waveform, record.fs_hz)
        seconds = self._processor.n_samples / self._processor.fs_hz
        return strongest_leads(self._mapper.evidence_maps(prepared, text_vector[None])[0], seconds)


def strongest_leads(evidence: Array, seconds: float) -> tuple[LeadEvidence, ...]:
    """Name the leads that carry most of a map of evidence.

    Args:
        evidence: float32, shape (12, windows); positive speaks for the text.
        seconds: what the windows cover together.
    """
    by_lead = evidence.sum(axis=1)
    total = float(by_lead[by_lead > 0].sum())
    step = seconds / evidence.shape[1]
    least = LEAST_SHARE_OF_BEST * by_lead.max()
    named = [int(lead) for lead in np.argsort(-by_lead) if by_lead[lead] > 0 and by_lead[lead] >= least]
    windows = evidence.argmax(axis=1)
    return tuple(
        LeadEvidence(
            lead=LEADS[lead],
            share=round(float(by_lead[lead]) / total, 4),
            from_s=round(float(windows[lead] * step), 2),
            to_s=round(float((windows[lead] + 1) * step), 2),
        )
        for lead in named
    )


def _mapper(bundle: Path) -> _Mapper:
    from fgclep.tag_numpy import NumpyTagHead

    return NumpyTagHead.from_bundle(bundle) or _WholeModel(bundle)


class _WholeModel:
    """Any bundle, with torch."""

    def __init__(self, bundle: Path) -> None:
        from fgclep.pretrained import load_model

        self._model = load_model(bundle)

    def evidence_maps(self, prepared: Array, text_vectors: Array) -> Array:
        from fgclep.evidence import evidence_maps

        return evidence_maps(self._model, prepared, text_vectors)
