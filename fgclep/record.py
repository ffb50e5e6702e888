"""One ECG: what is known about it, and its waveform."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError

Waveform = NDArray[np.float32]
"""float32, shape (12, samples), mV, leads in canonical order."""


@dataclass(frozen=True)
class Measurements:
    """Global measurements of one ECG; None where unknown (never a sentinel, never NaN)."""

    heart_rate_bpm: float | None = None
    rr_interval_ms: float | None = None
    pr_interval_ms: float | None = None
    qrs_duration_ms: float | None = None
    qt_interval_ms: float | None = None
    qtc_ms: float | None = None
    p_axis_deg: float | None = None
    qrs_axis_deg: float | None = None
    t_axis_deg: float | None = None


@dataclass(frozen=True)
class RecordInfo:
    """Everything known about one record besides its samples.

    Attributes:
        record_id: `<dataset>:<native id>`, unique and stable.
        dataset: `mimic-iv-ecg`, `ptb-xl`, `cpsc2018`, `csn`, `wfdb` or `synthetic`.
        subject_id: groups the records of one person; the record's own id where the data set does not tell.
        study_id: the data set's native id of this ECG.
        path: below the data root, POSIX, without extension.
        ecg_time: ISO 8601, as the data set gives it (MIMIC shifts dates).
        sex: `F`, `M` or None.
        report_lines: the report's original lines, in order.
        tags: codes the data set gives (SCP statements, SNOMED acronyms, synthetic truth).
        fold: the data set's own fold number (PTB-XL strat_fold) or None.
        extra: data set columns worth keeping that have no field of their own.
    """

    record_id: str
    dataset: str
    subject_id: str
    study_id: str
    path: str
    ecg_time: str | None = None
    age_years: float | None = None
    sex: str | None = None
    report_lines: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    fold: int | None = None
    measurements: Measurements = Measurements()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def generated(self) -> bool:
        """Tell whether the generator makes this record again from its id, `synthetic:<seed>-<number>`."""
        return self.record_id.startswith("synthetic:")


@dataclass(frozen=True)
class EcgRecord:
    """One record with its samples at their native rate.

    Attributes:
        waveform: float32, shape (12, samples), mV, canonical lead order, free of NaN.
        fs_hz: sampling rate of `waveform`.
        flags: what was found and mended or deserves a warning: `nan-filled`, `flat:V1,V2`, `einthoven`.
    """

    info: RecordInfo
    waveform: Waveform
    fs_hz: float
    flags: tuple[str, ...] = ()


class RecordReject(DataError):
    """A record that cannot be used, with a short reason code for the reject list.

    Args:
        record_id: the record.
        reason: one of `missing-file`, `unreadable`, `bad-header`, `truncated`, `missing-lead`, `duplicate-lead`,
            `lead-mismatch`, `bad-rate`, `too-short`, `nan`, `flat`.
        detail: the sentence for people.
    """

    def __init__(self, record_id: str, reason: str, detail: str) -> None:
        super().__init__(f"{record_id}: {detail}")
        self.record_id = record_id
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["RecordReject"], tuple[str, str, str]]:
        """Survive the trip out of a worker process."""
        return RecordReject, (self.record_id, self.reason, self.detail)
