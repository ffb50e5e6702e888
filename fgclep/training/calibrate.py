"""The score of a freshly trained model, fitted on its validation records."""

from fgclep.evaluation.calibration import fit_platt
from fgclep.evaluation.text_search import TASKS, task_labels
from fgclep.findings.catalog import findings
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import Calibration
from fgclep.training.training_set import ValidationSet, encode_units


def fit_calibration(model: FGCLEPModel, validation: ValidationSet) -> Calibration:
    """Fit the score on the validation records and all PTB-XL statements by plain name, see `evaluation.calibration`."""
    ecg = encode_units(model.ecg_encoder, validation.waveforms, autocast=False)
    rows, labels = task_labels(validation.infos, "all")
    return fit_platt(ecg[rows] @ model.encode_text([findings()[key].name for key in TASKS["all"]]).T, labels)
