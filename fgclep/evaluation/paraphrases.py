"""The same finding in other words: how much is lost against its plain name.

Phrasings come from the catalogue of findings: synonyms, descriptions of the waveform, shorthand and statements as
machines print them. Those that fgclep's own training may use and those that it never uses are kept apart; to a foreign
model all of them are new.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgclep.evaluation.bootstrap import auc, average_precision
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet
from fgclep.findings.catalog import Finding, findings

SEEN, HELD_OUT = "seen", "held out"
LEAST_PHRASINGS = 8


@dataclass(frozen=True)
class Phrasing:
    """One way to ask for a finding; `kind` is synonym, criteria, shorthand or statement."""

    text: str
    kind: str
    seen: bool
    auc: float
    average_precision: float


@dataclass(frozen=True)
class FindingPhrasings:
    """One finding, by its plain name and in other words."""

    finding: str
    name: str
    positives: int
    auc: float
    average_precision: float
    others: tuple[Phrasing, ...]

    def group(self, seen: bool, kind: str | None = None) -> list[Phrasing]:
        """Return the phrasings that training may have seen, or the others; of one kind or of all."""
        return [other for other in self.others if other.seen == seen and kind in (None, other.kind)]


@dataclass(frozen=True)
class Drop:
    """Loss against the plain name, mean over the findings that have such phrasings; positive means worse.

    Attributes:
        auc, average_precision: of the mean phrasing.
        worst_auc: of the phrasing with the lowest AUC.
    """

    findings: int
    phrasings: int
    auc: float
    average_precision: float
    worst_auc: float


@dataclass(frozen=True)
class Paraphrases:
    """Robustness to wording.

    Attributes:
        findings: those asked for, one row each.
        unnamed: classes that are no finding of the catalogue, or have fewer than 8 phrasings.
        plain_auc, plain_average_precision: by plain name, mean over findings.
        drop: `seen` and `held out` -> kind of phrasing or `all` -> the loss.
    """

    findings: tuple[FindingPhrasings, ...]
    unnamed: tuple[str, ...]
    plain_auc: float
    plain_average_precision: float
    drop: dict[str, dict[str, Drop]]


def paraphrases(search_set: SearchSet, score: TextScorer, *, min_positives: int = 10) -> Paraphrases | None:
    """Ask for every finding with enough positives by its plain name and by all other phrasings.

    Returns:
        None if no class with enough positives is a finding with at least 8 phrasings.
    """
    catalogue = findings()
    asked: list[tuple[int, Finding]] = []
    unnamed: list[str] = []
    for c in search_set.columns(min_positives):
        key = search_set.findings[c]
        if key is None or len(_texts(catalogue[key])) < LEAST_PHRASINGS:
            unnamed.append(search_set.classes[c])
        else:
            asked.append((c, catalogue[key]))
    if not asked:
        return None
    results = tuple(_measure(search_set, c, finding, score) for c, finding in asked)
    return Paraphrases(
        findings=results,
        unnamed=tuple(unnamed),
        plain_auc=float(np.mean([result.auc for result in results])),
        plain_average_precision=float(np.mean([result.average_precision for result in results])),
        drop={name: _drops(results, name == SEEN) for name in (SEEN, HELD_OUT)},
    )


def _texts(finding: Finding) -> list[str]:
    return [wording.text for wording in (*finding.wordings, *finding.held_out)]


def _measure(search_set: SearchSet, column: int, finding: Finding, score: TextScorer) -> FindingPhrasings:
    labels = search_set.labels[:, column]
    scores = score(_texts(finding))
    values = [(auc(labels, one), average_precision(labels, one)) for one in scores.T]
    phrasings = [(wording, True) for wording in finding.wordings] + [(wording, False) for wording in finding.held_out]
    return FindingPhrasings(
        finding=finding.id,
        name=finding.name,
        positives=int(labels.sum()),
        auc=values[0][0],
        average_precision=values[0][1],
        others=tuple(
            Phrasing(wording.text, wording.kind, seen, *value)
            for (wording, seen), value in zip(phrasings[1:], values[1:], strict=True)
        ),
    )


def _drops(results: Sequence[FindingPhrasings], seen: bool) -> dict[str, Drop]:
    """Return the loss over all phrasings of a group and by kind."""
    kinds = list(dict.fromkeys(other.kind for result in results for other in result.group(seen)))
    drops = {
        kind or "all": _drop([(result, result.group(seen, kind)) for result in results]) for kind in (None, *kinds)
    }
    return {name: drop for name, drop in drops.items() if drop is not None}


def _drop(asked: Sequence[tuple[FindingPhrasings, list[Phrasing]]]) -> Drop | None:
    """Return the loss of some phrasings of each finding; None if there are none."""
    pairs = [(result, others) for result, others in asked if others]
    if not pairs:
        return None
    losses = [
        (
            result.auc - float(np.mean([other.auc for other in others])),
            result.average_precision - float(np.mean([other.average_precision for other in others])),
            result.auc - min(other.auc for other in others),
        )
        for result, others in pairs
    ]
    means = (float(mean) for mean in np.mean(losses, axis=0))
    return Drop(len(pairs), sum(len(others) for _, others in pairs), *means)
