"""The tagger's rules: data in `data/rules.toml`, compiled once."""

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from fgclep.leads import LEADS


@dataclass(frozen=True)
class Rule:
    """One pattern and what a match asserts.

    Attributes:
        pattern: sees folded text.
        find: findings asserted, hedged only where the words around say so.
        hedge: findings asserted that are always hedged.
        absent: findings denied.
        kind: name of the territory table to read, or "".
        leads: KIND of the "<KIND>@<LEAD>" findings to assert for the leads named, or "".
        keep: leave the matched text for later rules.
        unless: matches nothing in a statement that holds this, or None.
    """

    pattern: re.Pattern[str]
    find: tuple[str, ...] = ()
    hedge: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    kind: str = ""
    leads: str = ""
    keep: bool = False
    unless: re.Pattern[str] | None = None


@dataclass(frozen=True)
class RuleBook:
    """All of `rules.toml`, compiled."""

    substitutions: tuple[tuple[re.Pattern[str], str], ...]
    rules: tuple[Rule, ...]
    codes: re.Pattern[str]
    cues: dict[str, re.Pattern[str]]
    areas: dict[str, str]
    area_leads: dict[str, frozenset[str]]
    places: dict[str, dict[str, tuple[str, ...]]]
    parents: dict[str, tuple[str, ...]]
    remarks: dict[str, re.Pattern[str]]


def _rule(entry: dict[str, str | list[str] | bool]) -> Rule:
    unless = entry.pop("unless", None)
    groups = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    plain = {key: value for key, value in entry.items() if key in ("kind", "leads", "keep")}
    return Rule(
        pattern=re.compile(str(entry["pattern"])),
        unless=re.compile(str(unless)) if unless else None,
        **groups,  # type: ignore[arg-type]
        **plain,  # type: ignore[arg-type]
    )


@functools.cache
def rule_book() -> RuleBook:
    """Return the compiled rules that ship with the package."""
    text = resources.files("fgclep.findings").joinpath("data/rules.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    parents = {child: tuple(names) for child, names in data["parents"].items()}
    for kind, parent in data["lead_kinds"].items():
        parents |= {f"{kind}@{lead}": (parent,) for lead in LEADS}
    return RuleBook(
        substitutions=tuple((re.compile(pattern), new) for pattern, new in data["substitutions"]),
        rules=tuple(_rule(entry) for entry in data["rule"]),
        codes=re.compile(data["codes"]["pattern"]),
        cues={name: re.compile(pattern) for name, pattern in data["cues"].items()},
        areas=data["areas"],
        area_leads={area: frozenset(leads) for area, leads in data["area_leads"].items()},
        places={
            kind: {areas: tuple(found) for areas, found in table.items()} for kind, table in data["places"].items()
        },
        parents=parents,
        remarks={name: re.compile("|".join(patterns)) for name, patterns in data["remarks"].items()},
    )
