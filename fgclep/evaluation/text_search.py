"""How well text finds PTB-XL records: label retrieval by plain names and by wordings never trained on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.metrics import MacroScore, macro_auc, macro_average_precision, macro_precision_at
from fgclep.findings.catalog import findings, ptbxl_code
from fgclep.record import RecordInfo

TextEncoder = Callable[[list[str]], NDArray[np.float32]]

# The four PTB-XL benchmark tasks and all 71 statements, as findings. Each finding's `scp` codes are its classes' codes.
_SUPER = ("NORM", "MI", "STTC", "CD", "HYP")
_SUB = tuple(
    (
        "AMI_ANY IMI_ANY LMI PMI LAFB_LPFB LVH RVH SEHYP STTC_SUB NST ISC ISCA_ANY ISCI_ANY CRBBB IRBBB CLBBB "
        "ILBBB IVCD WPW AVB LAO RAO NORM"
    ).split()
)
_FORM = tuple(("NDT NST DIG LNGQT ABQRS PVC STD VCLVH QWAVE LOWT NT PAC LPR INVT LVOLT HVOLT TNOS STE PRC").split())
_RHYTHM = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU")
_DIAGNOSTIC = tuple(
    (
        "NDT NST DIG LNGQT NORM IMI ASMI LVH LAFB ISC IRBBB 1AVB IVCD ISCAL CRBBB CLBBB ILMI LAO AMI ALMI "
        "ISCIN INJAS LMI ISCIL LPFB ISCAS INJAL ISCLA RVH ANEUR RAO EL WPW ILBBB IPLMI ISCAN IPMI SEHYP INJIN "
        "INJLA PMI 3AVB INJIL 2AVB"
    ).split()
)

TASKS: dict[str, tuple[str, ...]] = {
    "super": _SUPER,
    "sub": _SUB,
    "form": _FORM,
    "rhythm": _RHYTHM,
    "all": tuple(dict.fromkeys(_DIAGNOSTIC + _FORM + _RHYTHM)),
}
"""Findings of each PTB-XL task; `all` are the 71 statements."""

_CODES_OF_OWN = {"PRC": ("PRC",)}  # a finding may count more codes than the benchmark's class does


@dataclass(frozen=True)
class TaskResult:
    """Text retrieval on one task.

    Attributes:
        records: that have at least one class of the task.
        auc, mean_average_precision, precision_at_10: each class asked for by its plain name.
        best_precision_at_10: of a perfect ranking; below 1 where classes have fewer than ten records.
        prevalence: what chance gives for mAP and P@10.
    """

    records: int
    auc: MacroScore
    mean_average_precision: MacroScore
    precision_at_10: MacroScore
    best_precision_at_10: float
    prevalence: float


@dataclass(frozen=True)
class AskedInOtherWords:
    """AUC of one held-out wording; kind is synonym, criteria or shorthand."""

    text: str
    kind: str
    auc: float


@dataclass(frozen=True)
class WordingResult:
    """One finding asked for by its plain name and by each held-out wording (AUC)."""

    finding: str
    name: str
    plain: float
    others: tuple[AskedInOtherWords, ...]

    def worst(self, others: Sequence[AskedInOtherWords] | None = None) -> AskedInOtherWords:
        """Return the wording with the lowest AUC, of all or of those given."""
        return min(others or self.others, key=lambda other: other.auc)


def task_labels(infos: Sequence[RecordInfo], task: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the rows that take part in a task (at least one class) and their labels (rows, classes)."""
    catalogue = findings()
    codes = [{ptbxl_code(tag) for tag in info.tags} for info in infos]
    classes = [set(_CODES_OF_OWN.get(key, catalogue[key].scp)) for key in TASKS[task]]
    labels = np.array([[bool(row & wanted) for wanted in classes] for row in codes])
    rows = np.arange(len(infos)) if task == "all" else np.flatnonzero(labels.any(axis=1))
    return rows, labels[rows]


def evaluate_task(
    infos: Sequence[RecordInfo], ecg: NDArray[np.float32], encode_text: TextEncoder, task: str
) -> TaskResult:
    """Retrieve each class of a task by its plain name.

    Args:
        infos: n PTB-XL records.
        ecg: float32, shape (n, dim), unit norm.
        encode_text: texts to unit-norm vectors.
        task: a key of `TASKS`.
    """
    rows, labels = task_labels(infos, task)
    names = TASKS[task]
    scores = ecg[rows] @ encode_text([findings()[key].name for key in names]).T
    defined = labels.any(axis=0) & ~labels.all(axis=0)
    return TaskResult(
        records=len(rows),
        auc=macro_auc(labels, scores, names),
        mean_average_precision=macro_average_precision(labels, scores, names),
        precision_at_10=macro_precision_at(labels, scores, names, 10),
        best_precision_at_10=macro_precision_at(labels, labels.astype(np.float32), names, 10).mean,
        prevalence=float(labels[:, defined].mean()) if defined.any() else float("nan"),
    )


def evaluate_wordings(
    infos: Sequence[RecordInfo], ecg: NDArray[np.float32], encode_text: TextEncoder, min_positives: int = 10
) -> list[WordingResult]:
    """Ask for every PTB-XL finding with enough positives by its plain name and by its held-out wordings."""
    results = []
    rows, labels = task_labels(infos, "all")
    for column, key in enumerate(TASKS["all"]):
        finding = findings()[key]
        relevant = labels[:, column]
        if relevant.sum() < min_positives or relevant.all() or not finding.held_out:
            continue
        scores = ecg[rows] @ encode_text([finding.name, *(wording.text for wording in finding.held_out)]).T
        columns = [str(number) for number in range(scores.shape[1])]
        auc = list(macro_auc(np.repeat(relevant[:, None], len(columns), axis=1), scores, columns).by_class.values())
        others = tuple(
            AskedInOtherWords(wording.text, wording.kind, value)
            for wording, value in zip(finding.held_out, auc[1:], strict=True)
        )
        results.append(WordingResult(key, finding.name, auc[0], others))
    return results


def wording_drop(results: Sequence[WordingResult]) -> dict[str, float]:
    """Summarise how much AUC is lost when findings are asked for in wordings never trained on (means over findings).

    Returns:
        `findings` and `wordings` (counts), `plain` (AUC of the plain names), and losses against the plain name: `mean`
        over all held-out wordings, `synonym`, `criteria`, `shorthand` by kind, `worse_of_two` (the worse of the first
        held-out description of the waveform and the first held-out synonym or shorthand), `worst` of all.
    """
    drop = {
        "findings": float(len(results)),
        "wordings": float(sum(len(result.others) for result in results)),
        "plain": _mean(result.plain for result in results),
        "mean": _mean(result.plain - _mean(other.auc for other in result.others) for result in results),
    }
    for kind in ("synonym", "criteria", "shorthand"):
        of_kind = [(r.plain, [other.auc for other in r.others if other.kind == kind]) for r in results]
        drop[kind] = _mean(plain - _mean(values) for plain, values in of_kind if values)
    drop["worse_of_two"] = _mean(result.plain - result.worst(_two(result)).auc for result in results)
    drop["worst"] = _mean(result.plain - result.worst().auc for result in results)
    return drop


def _two(result: WordingResult) -> list[AskedInOtherWords]:
    """Return the first description of the waveform and the first other wording, where there are such."""
    criteria = [other for other in result.others if other.kind == "criteria"]
    words = [other for other in result.others if other.kind != "criteria"]
    return criteria[:1] + words[:1]


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")
