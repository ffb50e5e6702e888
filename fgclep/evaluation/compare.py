"""Whether one model is really better than another: paired bootstrap over subjects on the records that both have."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgclep.errors import CorruptionError, NotSetUpError, UsageError
from fgclep.evaluation.bootstrap import Metric, auc, average_precision, paired_bootstrap
from fgclep.evaluation.results import Interval, Scored

METRICS: dict[str, Metric] = {"auc": auc, "average_precision": average_precision}
LEVEL = 0.05
"""A difference counts as real if its p value, corrected for the number of comparisons, is below this."""


@dataclass(frozen=True)
class Comparison:
    """A minus B, mean over classes, on the records that both have.

    Attributes:
        name: of what both were measured on.
        metric: a key of `METRICS`.
        records: that both have.
        difference: with its 95 % interval, uncorrected.
        p_value: two-sided, of no difference.
        corrected: the p value by Holm's method for all comparisons of the metric that were made together.
    """

    name: str
    metric: str
    records: int
    difference: Interval
    p_value: float
    corrected: float

    @property
    def real(self) -> bool:
        """Tell whether the difference is real at `LEVEL`."""
        return self.corrected < LEVEL


def compare(pairs: Sequence[tuple[str, Scored, Scored]], metric: str, draws: int, seed: int) -> tuple[Comparison, ...]:
    """Compare pairs of results.

    Args:
        pairs: name, A and B of each.
        metric: a key of `METRICS`.
        draws: of the bootstrap; no p value is below 2 / (draws + 1).
        seed: of the bootstrap.

    Raises:
        UsageError: for an unknown metric, or too few draws to tell anything at `LEVEL`.
        CompatibilityError: if the two of a pair have different classes or labels, or no record in common.
    """
    if metric not in METRICS:
        raise UsageError(f"there is no metric {metric!r}; known: {', '.join(METRICS)}.")
    if 2 * len(pairs) / (draws + 1) >= LEVEL:
        raise UsageError(
            f"{draws} draws are too few to tell {len(pairs)} differences from chance at {LEVEL:g}.",
            f"Give --draws {max(1000, 100 * len(pairs))}.",
        )
    found = []
    for name, a, b in pairs:
        difference, p_value = paired_bootstrap(a, b, METRICS[metric], draws, seed)
        records = len(set(a.record_ids) & set(b.record_ids))
        found.append(Comparison(name, metric, records, difference, p_value, p_value))
    corrected = holm([comparison.p_value for comparison in found])
    return tuple(replace(comparison, corrected=p) for comparison, p in zip(found, corrected, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's step-down method (1979), in the order given."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = least
    return corrected


def pair_up(a: Path, b: Path) -> list[tuple[str, Scored, Scored]]:
    """Load what two paths have in common to compare.

    Args:
        a, b: two .npz files of scores, or two folders of results with one model each: of `fgclep evaluate zero-shot
            --out` or of `fgclep evaluate all`.

    Returns:
        Name, A and B of everything that was measured with the same prompts on the same split in both.

    Raises:
        NotSetUpError: if a path does not exist or holds no scores.
        UsageError: if one is a file and the other a folder, a folder holds several models, or nothing is common.
        CorruptionError: if a file is damaged.
    """
    if a.is_dir() != b.is_dir() and a.exists() and b.exists():
        raise UsageError(f"one of {a} and {b} is a folder; expected two .npz files or two folders.")
    if not a.is_dir():
        return [(f"{a.stem} / {b.stem}", Scored.load(a), Scored.load(b))]
    of_a, of_b = _scores_of(a), _scores_of(b)
    common = [name for name in of_a if name in of_b]
    if not common:
        raise UsageError(
            f"{a} and {b} have nothing in common: {', '.join(of_a)} and {', '.join(of_b)}.",
            "Measure both on one split with the same prompts.",
        )
    return [(name, Scored.load(of_a[name]), Scored.load(of_b[name])) for name in common]


def _scores_of(folder: Path) -> dict[str, Path]:
    """Return the files of zero-shot scores below a folder by what was measured; every .npz lies beside its .json."""
    found: dict[str, Path] = {}
    for scores in sorted(folder.rglob("zero-shot-*.npz")):
        result = _result_beside(scores)
        name = f"{result['benchmark']} ({result['split']}), {result['prompts']} prompts"
        if name in found:
            raise UsageError(
                f"{folder} holds the scores of several models on {name}: {found[name].name} and {scores.name}.",
                f"fgclep evaluate compare {found[name]} {scores}",
            )
        found[name] = scores
    if not found:
        raise NotSetUpError(f"{folder} holds no scores (zero-shot-*.npz).", "fgclep evaluate zero-shot --out DIR")
    return found


def _result_beside(scores: Path) -> dict[str, Any]:
    file = scores.with_suffix(".json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        result: dict[str, Any] = content["results"][0] if "results" in content else content["result"]
        if {"benchmark", "split", "prompts"} <= set(result):
            return result
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CorruptionError(f"{file} does not tell what {scores.name} holds: {error!r}.") from error
    raise CorruptionError(f"{file} does not tell what {scores.name} holds.", "Run the evaluation again.")
