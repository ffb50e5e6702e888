"""How well text finds PTB-XL records: label retrieval by plain names and by wordings never trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.metrics import MacroScore, macro_auc, macro_average_precision, macro_precision_at
from fgclep.findings.catalog import findings, fold_wording, ptbxl_code
from fgclep.record import RecordInfo

TextEncoder = Callable[[list[str]], NDArray[np.float32]]

# The four PTB-XL benchmark tasks and all 71 statements, as findings. Each finding's `scp` codes are its classes' codes.
_SUPER = ("NORM", "MI", "STTC", "CD", "HYP")
_SUB = (
    "AMI_ANY", "IMI_ANY", "LMI", "PMI", "LAFB_LPFB", "LVH", "RVH", "SEHYP", "STTC_SUB", "NST", "ISC", "ISCA_ANY",
    "ISCI_ANY", "CRBBB", "IRBBB", "CLBBB", "ILBBB", "IVCD", "WPW", "AVB", "LAO", "RAO", "NORM",
)  # fmt: skip
_FORM = (
    "NDT", "NST", "DIG", "LNGQT", "ABQRS", "PVC", "STD", "VCLVH", "QWAVE", "LOWT", "NT", "PAC", "LPR", "INVT", "LVOLT",
    "HVOLT", "TAB", "STE", "PRC",
)  # fmt: skip
_RHYTHM = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU")
_DIAGNOSTIC = (
    "NDT", "NST", "DIG", "LNGQT", "NORM", "IMI", "ASMI", "LVH", "LAFB", "ISC", "IRBBB", "1AVB", "IVCD", "ISCAL",
    "CRBBB", "CLBBB", "ILMI", "LAO", "AMI", "ALMI", "ISCIN", "INJAS", "LMI", "ISCIL", "LPFB", "ISCAS", "INJAL", "ISCLA",
    "RVH", "ANEUR", "RAO", "EL", "WPW", "ILBBB", "IPLMI", "ISCAN", "IPMI", "SEHYP", "INJIN", "INJLA", "PMI", "3AVB", "INJIL",
    "2AVB",
)  # fmt: skip

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
    """Text retrieval on one task; `prevalence` is what chance gives for mAP and P@10."""

    records: int
    auc: MacroScore
    mean_average_precision: MacroScore
    precision_at_10: MacroScore
    prevalence: float


@dataclass(frozen=True)
class WordingResult:
    """One finding asked for by its plain name and by each held-out wording (AUC)."""

    finding: str
    plain: float
    others: dict[str, float]


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
        prevalence=float(labels[:, defined].mean()) if defined.any() else float("nan"),
    )


def evaluate_wordings(
    infos: Sequence[RecordInfo], ecg: NDArray[np.float32], encode_text: TextEncoder, min_positives: int = 10
) -> list[WordingResult]:
    """Ask for every PTB-XL finding with enough positives by its plain name and by its held-out wordings."""
    results = []
    rows, labels = task_labels(infos, "all")
    for column, key in enumerate(TASKS["all"]):
        held_out = findings()[key].held_out
        if labels[:, column].sum() < min_positives or not held_out:
            continue
        texts = [findings()[key].name, *(wording.text for wording in held_out)]
        scores = ecg[rows] @ encode_text(texts).T
        same = np.repeat(labels[:, column : column + 1], len(texts), axis=1)
        auc = macro_auc(same, scores, [f"{i}:{fold_wording(text)}" for i, text in enumerate(texts)]).by_class
        values = list(auc.values())
        results.append(WordingResult(key, values[0], dict(zip(texts[1:], values[1:], strict=True))))
    return results


def wording_drop(results: Sequence[WordingResult]) -> dict[str, float]:
    """Summarise the loss of AUC when a finding is asked for in wordings never trained on.

    `mean` averages over all held-out wordings, `worse_of_two` takes the worse of the first and the last one (a synonym
    and a shorthand or criterion, as they stand in the catalogue), `worst` the worst of all.
    """
    if not results:
        return {"findings": 0.0} | dict.fromkeys(("plain", "mean", "worse_of_two", "worst"), float("nan"))
    others = [list(result.others.values()) for result in results]
    plain = np.array([result.plain for result in results])
    return {
        "findings": float(len(results)),
        "plain": float(plain.mean()),
        "mean": float(np.mean([p - np.mean(values) for p, values in zip(plain, others, strict=True)])),
        "worse_of_two": float(np.mean([p - min(v[0], v[-1]) for p, v in zip(plain, others, strict=True)])),
        "worst": float(np.mean([p - min(values) for p, values in zip(plain, others, strict=True)])),
    }
