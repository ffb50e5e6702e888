"""What `fgclep enrich export` wrote, as statements to append to the reports of step 3."""

import json
from dataclasses import dataclass
from pathlib import Path

from fgclep.errors import DataError, NotSetUpError
from fgclep.findings.catalog import fold_wording
from fgclep.training.statements import held_out_wordings


@dataclass(frozen=True)
class Enriched:
    """Accepted features.

    Attributes:
        features: record id -> features, for every record of the export.
        kept: features in all.
        held_out: features dropped because they are wordings that evaluation holds out from all training.
    """

    features: dict[str, list[str]]
    kept: int
    held_out: int


def read_enriched(path: Path) -> Enriched:
    """Read an export in JSONL.

    Raises:
        NotSetUpError: if there is no such file.
        DataError: if it is no such export.
    """
    if not path.is_file():
        raise NotSetUpError(f"{path} does not exist; expected enriched reports.", f"fgclep enrich export {path}")
    forbidden = held_out_wordings()
    features: dict[str, list[str]] = {}
    kept = held_out = number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007  # told if it fails
                row = json.loads(line)
                proposed = row["features"]
                if not isinstance(proposed, list) or not all(isinstance(text, str) for text in proposed):
                    raise ValueError("its features are no list of texts")
                allowed = [text for text in proposed if fold_wording(text) not in forbidden]
                features[row["record_id"]] = allowed
                kept += len(allowed)
                held_out += len(proposed) - len(allowed)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}, line {number}, is no enriched report ({error!s:.80}); expected JSONL of fgclep enrich export.",
            "fgclep enrich export OUT.jsonl",
        ) from error
    return Enriched(features, kept, held_out)
