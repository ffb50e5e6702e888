"""The data sets that fgclep reads, and the one door to them: `open_dataset`."""

from pathlib import Path

from fgclep.datasets import mimic_iv_ecg, ptbxl
from fgclep.datasets.base import Dataset
from fgclep.datasets.pack import Pack
from fgclep.datasets.pack_files import unfinished_plan
from fgclep.datasets.pack_format import MANIFEST, UNFINISHED
from fgclep.datasets.wfdb_folder import WfdbFolder
from fgclep.errors import DataError, NotSetUpError

__all__ = ["Dataset", "open_dataset", "open_for_rate"]

_BY_TABLE = {ptbxl.TABLE: ptbxl.PtbXl, mimic_iv_ecg.RECORD_LIST: mimic_iv_ecg.MimicIvEcg}
_KNOWN = (
    f"MIMIC-IV-ECG (a folder with {mimic_iv_ecg.RECORD_LIST}), PTB-XL ({ptbxl.TABLE}), "
    "CPSC2018, CSN, any WFDB folder (.hea files) and what `fgclep data pack` made of one of them"
)


def open_dataset(path: Path | str, *, fs_hz: int | None = None) -> Dataset:
    """Recognise and open the data set in a folder, or a pack of one.

    Args:
        path: the folder that the data set's table or records lie in.
        fs_hz: which of the rates that the tree offers to read; the highest unless given.

    Raises:
        NotSetUpError: if the folder does not exist.
        DataError: if nothing in it is known, or a known table is damaged.
        UsageError: if the tree does not offer `fs_hz`.
    """
    root = Path(path)
    if not root.exists():
        raise NotSetUpError(f"{root} does not exist; expected a folder with ECG records.", "fgclep data scan PATH")
    if not root.is_dir():
        raise DataError(
            f"{root} is a file; expected the folder of a data set.", f"fgclep data scan {root.absolute().parent}"
        )
    if (root / MANIFEST).exists():
        return Pack(root, fs_hz)
    if (root / UNFINISHED).exists():
        raise DataError(
            f"{root} is a pack that was not finished.",
            f"fgclep data pack {unfinished_plan(root).get('source', 'PATH')} {root}",
        )
    for table, dataset in _BY_TABLE.items():
        if (root / table).exists():
            return dataset(root, fs_hz)
    below = next((found.parent for table in _BY_TABLE for found in sorted(root.glob(f"*/{table}"))), None)
    if below is not None:
        raise DataError(f"{root} is not a data set itself, but {below} is.", f"fgclep data scan {below}")
    folder = WfdbFolder(root, fs_hz)
    if folder:
        return folder
    entries = sorted(entry.name for entry in root.iterdir())
    found = "is empty" if not entries else "holds " + ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "")
    raise DataError(f"{root} {found}; that is no data set fgclep knows.", f"Known are {_KNOWN}.")


def open_for_rate(path: Path | str, fs_hz: float) -> Dataset:
    """Open a data set at the lowest of its rates that is no lower than `fs_hz`, else at the highest.

    Raises:
        NotSetUpError, DataError: as `open_dataset` does.
    """
    dataset = open_dataset(path)
    enough = [rate for rate in dataset.rates if rate >= fs_hz]
    return open_dataset(path, fs_hz=min(enough)) if enough else dataset
