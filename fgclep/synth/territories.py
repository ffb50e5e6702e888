"""Where a regional change shows: its pattern over the eight independent leads.

A pattern is the ST elevation (relative to 1) that an injury of the region gives; I and II are chosen so that
the derived limb leads show the right places and their reciprocal changes.
"""

import numpy as np

from fgclep.synth.waves import Floats

_PATTERNS: dict[str, tuple[float, ...]] = {
    #      I      II     V1    V2    V3    V4    V5    V6
    "AS": (0.00, -0.10, 0.75, 1.00, 0.90, 0.30, 0.00, 0.00),
    "AN": (0.10, -0.10, 0.30, 0.90, 1.00, 0.90, 0.40, 0.10),
    "AL": (0.50, 0.05, 0.00, 0.25, 0.75, 1.00, 0.90, 0.70),
    "LA": (0.60, 0.05, -0.15, -0.10, 0.10, 0.30, 0.85, 0.95),
    "IN": (-0.25, 0.60, -0.05, -0.20, -0.10, 0.00, 0.05, 0.10),
    "IL": (0.15, 0.70, -0.15, -0.20, -0.10, 0.20, 0.80, 0.90),
    "PO": (0.00, 0.00, -0.70, -1.00, -0.80, -0.30, 0.00, 0.20),
}

INFARCTS: dict[str, tuple[str, ...]] = {
    "IMI": ("IN",),
    "AMI": ("AN",),
    "ASMI": ("AS",),
    "ALMI": ("AL",),
    "ILMI": ("IL",),
    "LMI": ("LA",),
    "PMI": ("PO",),
    "IPMI": ("IN", "PO"),
    "IPLMI": ("IL", "PO"),
}
"""Infarction id -> the regions it takes."""

ISCHAEMIAS: dict[str, str] = {
    "ISCAL": "AL",
    "ISCIN": "IN",
    "ISCIL": "IL",
    "ISCAS": "AS",
    "ISCLA": "LA",
    "ISCAN": "AN",
}
INJURIES: dict[str, str] = {"INJAS": "AS", "INJAL": "AL", "INJIN": "IN", "INJLA": "LA", "INJIL": "IL"}


def pattern(region: str) -> Floats:
    """Return the region's pattern over the independent leads, shape (8,)."""
    return np.array(_PATTERNS[region])


ANTERIOR: tuple[str, ...] = ("V1", "V2", "V3", "V4")
INFERIOR: tuple[str, ...] = ("II", "III", "aVF")
LATERAL: tuple[str, ...] = ("I", "aVL", "V5", "V6")
