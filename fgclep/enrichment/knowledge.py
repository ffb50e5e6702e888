"""From findings to what they look like: waveform criteria by finding, from textbooks and consensus papers.

The criteria are data (`data/*.toml`), one table per finding with its `features` and the keys of its `sources`, which
`data/sources.toml` spells out.
"""

import functools
import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest

from fgclep.enrichment.answers import clean_features
from fgclep.enrichment.prompts import MAX_FEATURES
from fgclep.findings.catalog import findings, fold_wording
from fgclep.findings.tagger import PARENTS, split_report, tag_statement

_SOURCES = "sources.toml"


@dataclass(frozen=True)
class Criteria:
    """What a finding looks like; `sources` are keys of `knowledge_sources`."""

    features: tuple[str, ...]
    sources: tuple[str, ...]


def _texts() -> Iterator[tuple[str, str]]:
    folder = files("fgclep.enrichment") / "data"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            yield file.name, file.read_text(encoding="utf-8")


@functools.cache
def knowledge_sources() -> dict[str, str]:
    """Return the works that the criteria come from, by key."""
    return {key: str(work) for key, work in tomllib.loads(dict(_texts())[_SOURCES]).items()}


@functools.cache
def knowledge() -> dict[str, Criteria]:
    """Return the criteria by finding id.

    Raises:
        ValueError: if a table names an unknown finding or source, appears twice, or lacks features or sources.
    """
    found: dict[str, Criteria] = {}
    for name, text in _texts():
        if name == _SOURCES:
            continue
        for key, table in tomllib.loads(text).items():
            if key in found or key not in findings():
                raise ValueError(f"{name}: {key} is {'there twice' if key in found else 'no finding of the catalogue'}")
            criteria = Criteria(tuple(table["features"]), tuple(table["sources"]))
            if not criteria.features or not criteria.sources or set(criteria.sources) - set(knowledge_sources()):
                raise ValueError(f"{name}: {key} needs features, and sources that {_SOURCES} knows")
            found[key] = criteria
    return found


@functools.cache
def knowledge_fingerprint() -> str:
    """Return 8 hexadecimal digits that change with any criterion or rule of the tagger: then all is asked anew."""
    rules = (files("fgclep.findings") / "data" / "rules.toml").read_text(encoding="utf-8")
    return hashlib.sha256("\n".join([rules, *(text for _, text in _texts())]).encode()).hexdigest()[:8]


def features_of_report(report: str) -> list[str]:
    """Return the criteria of everything that a report asserts, hedged or not, at most `MAX_FEATURES`.

    One criterion of each finding in turn, so that no finding crowds out another; a finding that a more specific one
    implies has no turn. What the report says in the same words is left out.
    """
    statements = split_report(report)
    named = [a.finding for text in statements for a in sorted(tag_statement(text)) if a.present]
    implied = {parent for finding in named for parent in PARENTS.get(finding, ())}
    turns = [knowledge()[key].features for key in dict.fromkeys(named) if key in knowledge() and key not in implied]
    said = {fold_wording(text) for text in statements}
    in_turn = (feature for features in zip_longest(*turns) for feature in features if feature is not None)
    return [feature for feature in clean_features(in_turn) if fold_wording(feature) not in said][:MAX_FEATURES]
