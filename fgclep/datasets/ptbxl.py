"""PTB-XL: ptbxl_database.csv beside records100/ and records500/, either or both, complete or not."""

import ast
from collections.abc import Iterator
from pathlib import Path

from fgclep.datasets.base import Dataset, iso_time, iter_csv, parse_number
from fgclep.errors import DataError
from fgclep.findings.catalog import ptbxl_code
from fgclep.record import RecordInfo

TABLE = "ptbxl_database.csv"

_PATH_COLUMNS = {100: "filename_lr", 500: "filename_hr"}
_COLUMNS = (
    "ecg_id",
    "patient_id",
    "age",
    "sex",
    "recording_date",
    "report",
    "scp_codes",
    "strat_fold",
    *_PATH_COLUMNS.values(),
)
_EXTRA = (
    "scp_codes",
    "device",
    "height",
    "weight",
    "heart_axis",
    "infarction_stadium1",
    "infarction_stadium2",
    "validated_by_human",
    "baseline_drift",
    "static_noise",
    "burst_noise",
    "electrodes_problems",
    "extra_beats",
    "pacemaker",
)
_SEX = {"0": "M", "1": "F"}
_AGE_OVER_89 = 300.0


class PtbXl(Dataset):
    """PTB-XL v1.0.1 to v1.0.3, whole or in part."""

    kind = "ptb-xl"
    name = "PTB-XL"
    side_tables = (TABLE,)

    def __init__(self, root: Path, fs_hz: int | None = None) -> None:
        rates = [rate for rate in _PATH_COLUMNS if (root / f"records{rate}").is_dir()]
        if not rates:
            raise DataError(
                f"{root} has {TABLE} but neither records100 nor records500 beside it.",
                "Put the record folders beside the table, as PTB-XL is distributed.",
            )
        super().__init__(root, rates, fs_hz)

    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield the records whose files exist at the chosen rate, in the order of the table."""
        for row in self._rows():
            path = self._path(row)
            if self._has_files(path):
                yield _info(row, path)

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path of every record that the data set lists."""
        for row in self._rows():
            yield f"{self.kind}:{row['ecg_id']}", self._path(row)

    def _rows(self) -> Iterator[dict[str, str]]:
        return iter_csv(self.root / TABLE, _COLUMNS)

    def _path(self, row: dict[str, str]) -> str:
        assert self.fs_hz is not None  # the constructor found at least one rate
        return row[_PATH_COLUMNS[self.fs_hz]]


def parse_scp_codes(text: str, source: str) -> dict[str, float]:
    """Parse `{'NORM': 100.0, 'SR': 0.0}` into codes and likelihoods; a likelihood of 0 means unknown, not absent.

    Raises:
        DataError: if the text is anything else.
    """
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise DataError(f"{source}: scp_codes is {text[:60]!r}; expected {{'CODE': likelihood, ...}}.") from None


def _info(row: dict[str, str], path: str) -> RecordInfo:
    record_id = f"{PtbXl.kind}:{row['ecg_id']}"
    patient = parse_number(row["patient_id"])
    age = parse_number(row["age"])
    fold = parse_number(row["strat_fold"])
    extra = {name: row[name].strip() for name in _EXTRA if row.get(name, "").strip()}
    if age == _AGE_OVER_89:  # ages above 89 are hidden behind 300
        age = 90.0
        extra["age"] = "over 89"
    report = row["report"].strip()
    codes = parse_scp_codes(row["scp_codes"], record_id)
    return RecordInfo(
        record_id=record_id,
        dataset=PtbXl.kind,
        subject_id=row["patient_id"] if patient is None else f"{patient:.0f}",
        study_id=row["ecg_id"],
        path=path,
        ecg_time=iso_time(row["recording_date"]),
        age_years=age,
        sex=_SEX.get(row["sex"].strip()),
        report_lines=(report,) if report else (),
        tags=tuple(dict.fromkeys(ptbxl_code(code) for code in codes)),
        fold=None if fold is None else int(fold),
        extra=extra,
    )
