"""The catalogue of findings: wordings to train and to test with, and which data set codes assert them.

Wordings are data (`data/*.toml`), one table per finding. `phrases` train the text tower; `held_out` wordings are kept
out of training altogether and measure what happens when somebody asks in other words.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fgclep.leads import LEADS

LEAD_KINDS: dict[str, tuple[str, ...]] = {
    "STE": ("ST elevation", "ST-segment elevation", "elevated ST segment", "STE"),
    "STD": ("ST depression", "ST-segment depression", "depressed ST segment", "STD"),
    "TINV": ("T wave inversion", "inverted T wave", "inverted T", "TWI"),
    "TTALL": ("tall T wave", "peaked T wave", "high T wave", "hyperacute T wave"),
    "Q": ("pathological Q wave", "Q wave", "deep Q wave", "abnormal Q wave"),
    "U": ("prominent U wave", "U wave", "U waves", "visible U wave"),
}
"""Findings that are stated lead by lead: id `<KIND>@<LEAD>`, e.g. `TINV@V4`."""

LEAD_TEMPLATES = ("{finding} in lead {lead}", "{finding} in {lead}", "{lead}: {finding}", "lead {lead} shows {finding}")
HELD_OUT_LEAD_TEMPLATES = ("{finding} seen in {lead}", "{lead} with {finding}")

_WORDING_KINDS = ("synonym", "criteria", "shorthand", "statement")
_KEYS = ("name", "group", "scp", "unclear", "absent_if", "phrases", "held_out")


@dataclass(frozen=True)
class Wording:
    """One way to ask for a finding; kind is plain, synonym, criteria, shorthand or statement."""

    text: str
    kind: str


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        id: short code, e.g. `AFIB`, `TINV@V4`.
        name: the plain name.
        group: rhythm, conduction, st-t, lead, ...
        scp: PTB-XL codes (`ptbxl_code` form) any of which asserts it; empty if PTB-XL cannot tell.
        unclear: PTB-XL codes with which its presence is uncertain.
        absent_if: PTB-XL codes that exclude it, for findings without codes of their own.
        wordings: for training; the first is the plain name.
        held_out: never in training.
    """

    id: str
    name: str
    group: str
    scp: tuple[str, ...]
    unclear: tuple[str, ...]
    absent_if: tuple[str, ...]
    wordings: tuple[Wording, ...]
    held_out: tuple[Wording, ...]


def ptbxl_code(code: str) -> str:
    """Return a PTB-XL SCP code as fgclep's finding id (`STD_` -> `STD`, `PRC(S)` -> `PRC`, `LAO/LAE` -> `LAO`)."""
    return code.split("/")[0].removesuffix("(S)").rstrip("_")


def fold_wording(text: str) -> str:
    """Return a wording reduced to lower-case words and digits, for telling wordings apart."""
    return " ".join(re.findall(r"[a-z0-9']+", text.casefold()))


@cache
def findings() -> dict[str, Finding]:
    """Return all findings by id, in a fixed order (files by name, then the lead-wise ones)."""
    found: dict[str, Finding] = {}
    folder = files("fgclep.findings") / "data"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml") or file.name.startswith("rules"):
            continue
        for key, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if key in found:
                raise ValueError(f"finding {key} is defined twice; second time in {file.name}")
            found[key] = _finding(key, table)
    for kind, names in LEAD_KINDS.items():
        for lead in LEADS:
            found[f"{kind}@{lead}"] = _lead_finding(kind, names, lead)
    return found


@cache
def further_wordings() -> dict[str, tuple[str, ...]]:
    """Return more wordings to train on, by finding.

    They are kept apart (`data/further.tsv`: finding, kind, text) because their authors never saw the held-out wordings;
    those that met or nearly met one were struck out.
    """
    text = (files("fgclep.findings") / "data" / "further.tsv").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, wording = line.split("\t")
        found.setdefault(key, []).append(wording)
    return {key: tuple(wordings) for key, wordings in found.items()}


def _finding(key: str, table: dict[str, object]) -> Finding:
    unknown = set(table) - set(_KEYS)
    if unknown:
        raise ValueError(f"finding {key} has unknown keys {sorted(unknown)}; known: {_KEYS}")
    name = str(table["name"])
    return Finding(
        id=key,
        name=name,
        group=str(table["group"]),
        scp=_strings(table.get("scp")),
        unclear=_strings(table.get("unclear")),
        absent_if=_strings(table.get("absent_if")),
        wordings=(Wording(name, "plain"), *_wordings(table.get("phrases"))),
        held_out=_wordings(table.get("held_out")),
    )


def _strings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"found {value!r}; expected a list of strings")
    return tuple(str(item) for item in value)


def _wordings(table: object) -> tuple[Wording, ...]:
    if not isinstance(table, dict):
        raise ValueError(f"found {table!r}; expected a table of wordings")
    unknown = set(table) - set(_WORDING_KINDS)
    if unknown:
        raise ValueError(f"unknown kind of wording {sorted(unknown)}; known: {_WORDING_KINDS}")
    return tuple(Wording(text, kind) for kind in _WORDING_KINDS for text in _strings(table.get(kind)))


def _lead_finding(kind: str, names: tuple[str, ...], lead: str) -> Finding:
    def worded(templates: tuple[str, ...]) -> tuple[Wording, ...]:
        return tuple(
            Wording(template.format(finding=name, lead=lead), "criteria") for name in names for template in templates
        )

    plain = f"{names[0]} in lead {lead}"
    wordings = tuple(wording for wording in worded(LEAD_TEMPLATES) if wording.text != plain)
    return Finding(
        id=f"{kind}@{lead}",
        name=plain,
        group="lead",
        scp=(),
        unclear=(),
        absent_if=("NORM",),
        wordings=(Wording(plain, "plain"), *wordings),
        held_out=worded(HELD_OUT_LEAD_TEMPLATES),
    )
