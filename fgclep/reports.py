"""One report as text: cleaned for a text encoder, normalised, hashed, and its remarks about the recording."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from fgclep.findings.tagger import is_quality_remark, is_remark, split_report

MIN_WORDS = 4
"""Shorter reports are not trained on, as in MERL's preparation of MIMIC-IV-ECG (FG-CLEP's text says three words)."""

REPORT_FAULTS = {
    "empty": "no report",
    "uninformative": "nothing but remarks on the recording or the paperwork",
    "short": f"fewer than {MIN_WORDS} words",
}
"""Why a report is not trained on, in the order in which the reasons are tried."""

_EKG = re.compile(r"\bEKG\b", re.IGNORECASE)
_DECORATION = re.compile(r"\*+|=-|=|-{2,}")
_STOPS = re.compile(r"(?:\s*\.){2,}")


def _clean_line(line: str) -> str:
    """Return one line without decoration and superfluous white space, EKG written ECG."""
    text = unicodedata.normalize("NFC", line)
    text = _DECORATION.sub(" ", _EKG.sub("ECG", text))
    text = re.sub(r"\s+([.,;:])", r"\1", " ".join(text.split()))
    return _STOPS.sub(".", text).strip(" .,;:")


def clean_report(lines: Iterable[str], *, lower: bool = False) -> str:
    """Join the lines of a report to one cleaned text.

    Asterisks, rules of dashes and the "=-" marks of machine statements go, EKG becomes ECG, white space is made
    single, and empty lines are dropped.

    Args:
        lines: the report's original lines, in order.
        lower: return the text in lower case, as most published text encoders were trained.

    Returns:
        The statements joined by ". " and closed by a full stop; "" if nothing is left.
    """
    cleaned = [text for text in map(_clean_line, lines) if text]
    joined = ". ".join(cleaned) + "." if cleaned else ""
    return joined.lower() if lower else joined


def normalise(text: str) -> str:
    """Return the form in which two reports that say the same in the same words are equal.

    Lower case, cleaned as by `clean_report`, one statement separator, no closing full stop.
    """
    return clean_report(text.lower().splitlines(), lower=True).rstrip(".")


def report_hash(text: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the normalised text; equal reports share it on every machine."""
    return hashlib.sha256(normalise(text).encode("utf-8")).hexdigest()[:16]


def quality_remarks(text: str) -> tuple[str, ...]:
    """Return the statements of a report that speak about the recording, cleaned, in order.

    Args:
        text: a report of any number of statements.

    Returns:
        For instance `("Artifact in lead(s) I,V1",)`; empty where the recording was not remarked on.
    """
    return tuple(_clean_line(statement) for statement in split_report(text) if is_quality_remark(statement))


def report_fault(lines: Iterable[str]) -> str | None:
    """Say why contrastive training should leave a report out: a key of `REPORT_FAULTS`, None where it should not.

    Args:
        lines: the report's original lines.
    """
    text = clean_report(lines)
    if not text:
        return "empty"
    if all(_says_nothing(statement) for statement in split_report(text)):
        return "uninformative"
    return "short" if len(text.split()) < MIN_WORDS else None


@lru_cache(maxsize=16_384)  # machine statements repeat
def _says_nothing(statement: str) -> bool:
    return is_remark(statement)
