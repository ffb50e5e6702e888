"""Score a bundle on one fold of a PTB-XL tree."""

from pathlib import Path

import numpy as np

from fgclep.datasets import open_dataset, open_for_rate
from fgclep.errors import DataError
from fgclep.evaluation.tables import TextSearchScores, score_text_search
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import load_model

_BATCH = 256


def score_ptbxl_fold(
    bundle: Path, data: Path, fold: int, fs_hz: int | None
) -> tuple[TextSearchScores, int, int | None]:
    """Encode the records of a fold and retrieve them by text.

    Args:
        bundle: a model bundle.
        data: a PTB-XL tree, complete or not.
        fold: strat_fold, 1-10.
        fs_hz: rate of the files; None takes the one that suits the model (`open_for_rate`).

    Returns:
        The scores, the number of records and the rate they were read at.

    Raises:
        DataError: if the tree is not PTB-XL, or has no record of the fold.
        RecordReject: if a record cannot be used.
    """
    processor = EcgProcessor.from_pretrained(bundle)
    dataset = open_for_rate(data, processor.fs_hz) if fs_hz is None else open_dataset(data, fs_hz=fs_hz)
    if dataset.kind != "ptb-xl":
        raise DataError(f"{data} is a {dataset.kind} tree; this scores on PTB-XL.", f"fgclep data scan {data}")
    infos = [info for info in dataset.iter_infos() if info.fold == fold]
    if not infos:
        raise DataError(f"{data} has no records of fold {fold} at {dataset.fs_hz} Hz.", f"fgclep data scan {data}")
    model = load_model(bundle)
    vectors = []
    for start in range(0, len(infos), _BATCH):
        records = [dataset.read(info) for info in infos[start : start + _BATCH]]
        vectors.append(model.encode_ecg(np.stack([processor.prepare(r.waveform, r.fs_hz) for r in records])))
    return score_text_search(infos, np.concatenate(vectors), model.encode_text), len(infos), dataset.fs_hz
