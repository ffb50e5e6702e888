"""The twelve leads: canonical order and names, always resolved by name, never by position.

MIMIC-IV-ECG stores aVF before aVL and PTB-XL writes AVR in capitals, so a reader that trusts positions
silently swaps leads.
"""

from collections.abc import Sequence

from fgclep.errors import DataError

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Canonical lead order of every waveform in fgclep."""

_BY_FOLDED_NAME = {name.casefold(): name for name in LEADS}


def canonical_lead(name: str) -> str | None:
    """Return the canonical spelling of a lead name, or None if it names none of the twelve leads."""
    folded = name.strip().casefold()
    for prefix in ("lead", "ecg"):
        if folded.startswith(prefix):
            folded = folded.removeprefix(prefix).strip(" _-")
    return _BY_FOLDED_NAME.get(folded)


def canonical_order(names: Sequence[str], source: str) -> list[int]:
    """Return the positions at which the twelve canonical leads stand in `names`.

    Args:
        names: signal names in stored order; other signals may stand among them.
        source: the file, for the message.

    Raises:
        DataError: if a lead is missing or occurs twice.
    """
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        lead = canonical_lead(name)
        if lead is None:
            continue
        if lead in found:
            raise DataError(f"{source}: lead {lead} occurs twice among the signals {', '.join(names)}.")
        found[lead] = position
    missing = [lead for lead in LEADS if lead not in found]
    if missing:
        raise DataError(
            f"{source}: lead {', '.join(missing)} is missing; the file has {', '.join(names)}.",
            "fgclep needs all twelve standard leads; leave this record out or supply a 12-lead file.",
        )
    return [found[lead] for lead in LEADS]
