"""Platt scaling of similarities: what share of records with this similarity has the finding?"""

import numpy as np

from fgclep.evaluation.text_search import TASKS, task_labels
from fgclep.findings.catalog import findings
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import Calibration
from fgclep.training.coarse import ValidationSet, encode_units


def fit_calibration(model: FGCLEPModel, validation: ValidationSet) -> Calibration:
    """Fit score = sigmoid(slope * cos + offset) on all (validation record, PTB-XL statement) pairs by plain name."""
    from sklearn.linear_model import LogisticRegression

    ecg = encode_units(model, validation.waveforms, autocast=False)
    rows, labels = task_labels(validation.infos, "all")
    similarity = ecg[rows] @ model.encode_text([findings()[key].name for key in TASKS["all"]]).T
    fit = LogisticRegression(C=np.inf).fit(similarity.reshape(-1, 1), labels.reshape(-1))
    return Calibration(slope=float(fit.coef_[0, 0]), offset=float(fit.intercept_[0]))
