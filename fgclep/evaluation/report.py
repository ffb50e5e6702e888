"""The folder that a run leaves behind: results.json, tables in three forms, figures and one page.

- `index.html`: everything on one page
- `results.json`: every number, with seeds, versions, fingerprints, configuration and command
- `tables/`: each table as Markdown, CSV and LaTeX
- `figures/`: each figure as PNG and SVG
- `parts/`: what each part brought forth, and the scores it came from; kept for the next run
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgclep.evaluation.report_html import page
from fgclep.evaluation.report_search import calibration_tables, comparison_tables, retrieval_tables
from fgclep.evaluation.report_table import Table
from fgclep.evaluation.report_tables import linear_probe_tables, zero_shot_tables
from fgclep.evaluation.results import plain, provenance, write_json
from fgclep.evaluation.run_config import EvaluateConfig
from fgclep.evaluation.run_parts import Outcome

PAGE = "index.html"
RESULTS = "results.json"

_CAPTIONS = {
    "figure-curves": "ROC and precision-recall curves, each class asked for by text. Up to six classes in colour, else "
    "the three best and the three worst.",
    "figure-reliability": "Reliability of the scores before and after fitting (after: cross-validated over subjects "
    "and findings), at the reference prevalence; beside it, pairs of record and finding per bin.",
    "figure-similarity": "Semantic similarity of reports (Figure 3 of arXiv 2505.11939): cosine of the text embeddings "
    "of a random batch, and of 16 normal and 16 other ECGs.",
    "figure-map": "Embeddings of records with exactly one of the findings (Figure 4 of arXiv 2505.11939). Distances "
    "between groups in a t-SNE map mean little; the silhouette is measured in the model's own space.",
    "figure-hits": "First three hits, one per subject, of a query (Figure 5 of arXiv 2505.11939), with what the data "
    "set says of each; the query need not be true of them.",
}


def write_report(config: EvaluateConfig, outcomes: Sequence[Outcome], out: Path, command: Sequence[str]) -> None:
    """Write results, tables and page of a run; the figures are there already.

    Args:
        config: of the run.
        outcomes: of all its parts.
        out: folder of the run.
        command: that makes it again.
    """
    facts = provenance(command, seed=config.seed, config=plain(config))
    models = {each.inputs["spec"]: each.inputs["fingerprint"] for each in outcomes if "spec" in each.inputs}
    write_json(out / RESULTS, {**facts, "models": models, "parts": [vars(outcome) for outcome in outcomes]})
    tables = build_tables(outcomes)
    for table in tables:
        for suffix, text in (("md", table.to_markdown()), ("csv", table.to_csv()), ("tex", table.to_latex())):
            _write(out / "tables" / f"{table.name}.{suffix}", text)
    figures = [
        (_caption(outcome, name), out / name)
        for outcome in outcomes
        if outcome.kind == "figure"
        for name in outcome.files
        if name.endswith(".svg")
    ]
    problems = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    _write(out / PAGE, page(config.title, _told(config, facts, models), tables, figures, problems))


def build_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Return all tables of a run, in the order of the page."""

    def of(kind: str) -> list[Any]:
        return [outcome.result for outcome in outcomes if outcome.kind == kind and outcome.error is None]

    return [
        *zero_shot_tables(of("zero-shot")),
        *comparison_tables(of("comparison")),
        *linear_probe_tables(of("linear-probe")),
        *retrieval_tables(of("retrieval")),
        *calibration_tables(of("calibration")),
    ]


def _told(config: EvaluateConfig, facts: dict[str, Any], models: dict[str, str]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return [
        ("made", f"{facts['created']} by fgclep {facts['fgclep']}, Python {facts['python']}, {versions}"),
        ("command", " ".join(facts["command"])),
        ("models", "; ".join(f"{spec} (fingerprint {fingerprint})" for spec, fingerprint in models.items())),
        ("data", "; ".join(f"{name}: {folder}" for name, folder in config.data.items())),
        ("split", f"{config.split}, {'published split files' if config.splits else 'by the codes of the release'}"),
        ("seed", f"{config.seed}; {config.draws:,} bootstrap draws over subjects"),
    ]


def _caption(outcome: Outcome, name: str) -> str:
    kind = next(kind for kind in _CAPTIONS if outcome.name.startswith(kind))
    return f"{Path(name).stem}: {_CAPTIONS[kind]}"


def _write(path: Path, text: str) -> None:
    """Write a file that is either whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
