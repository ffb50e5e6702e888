"""How `fgclep enrich` prints."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from cli.output import console, print_json, say

if TYPE_CHECKING:
    from fgclep.enrichment.plan import Plan
    from fgclep.enrichment.run import RunTally
    from fgclep.enrichment.store import RunInfo
    from fgclep.enrichment.validate import Validation

_SHOWN_FEATURES = 20


def tell_run(key: str, without_report: int, tally: "RunTally", *, as_json: bool) -> None:
    """Tell what a run did."""
    counts = {
        "texts": tally.total,
        "answered_before": tally.resumed,
        "answered_now": tally.done - tally.resumed,
        "unanswered": tally.unanswered,
        "bad_answers": dict(tally.problems),
        "features": tally.features,
        "records_without_report": without_report,
    }
    if as_json:
        print_json({"schema": 1, "run": key, **counts})
    else:
        bad = ", ".join(f"{count} {problem}" for problem, count in tally.problems.items()) or "none"
        _print_pairs(
            [("run", key), *((name.replace("_", " "), v) for name, v in {**counts, "bad_answers": bad}.items())]
        )
    if tally.warning:
        say(f"warning: {tally.warning}")
    say("Next: fgclep enrich validate --data PATH")


def print_plan(run: str, made: "Plan") -> None:
    """Print what asking takes."""
    how = "measured" if made.measured else "assumed"
    lines: list[tuple[str, object]] = [
        ("run", run),
        ("records", made.records),
        ("without a report", made.without_report),
        ("unique reports", made.unique_texts),
        ("answered already", made.answered),
        ("to ask", made.to_ask),
        ("tokens counted by", made.tokenizer),
        ("prompt tokens", f"{made.prompt_tokens:,} ({made.shared_prompt_tokens} shared by all, cacheable)"),
        ("output tokens", f"{made.output_tokens:,} ({made.output_tokens_each:.0f} each, {how})"),
    ]
    _print_pairs(lines + [(f"hours at {rate}/s", f"{hours:.2f}") for rate, hours in made.hours.items()])


def _print_pairs(pairs: "list[tuple[str, object]]") -> None:
    width = max(len(label) for label, _ in pairs)
    for label, value in pairs:
        typer.echo(f"{label:<{width}}  {value:,}" if isinstance(value, int) else f"{label:<{width}}  {value}")


def print_validation(number: int, key: str, found: "Validation") -> None:
    """Print what a validation kept, feature by feature, and examples of what it did not."""
    from rich.table import Table

    rule = found.rule
    said = (
        f"{rule.score} from {rule.threshold:g}"
        if rule.quantile is None
        else f"best {rule.quantile:.0%} of each feature (rare ones together)"
    )
    pairs: list[tuple[str, object]] = [
        ("validation", f"{number} of run {key}, model {found.model}, {said}"),
        ("records", found.records),
        ("unreadable", _counted(found.unreadable)),
        ("nothing proposed", found.without_features),
        ("enriched", found.enriched),
        ("accepted", f"{found.accepted:,} of {found.proposed:,} proposals ({found.rate:.1%})"),
    ]
    if found.truth is not None:
        truth = found.truth
        pairs += [
            ("precision", f"{truth.precision:.3f} of {truth.accepted:,} accepted proposals of known truth"),
            ("accepting all", f"{truth.precision_all:.3f} of {truth.judged:,}"),
            ("recall", f"{truth.recall:.3f} of the true ones"),
        ]
    _print_pairs(pairs)
    table = Table("feature", "proposed", "accepted", "mean score", "true")
    for row in found.by_feature[:_SHOWN_FEATURES]:
        true = "-" if row.truth is None else f"{row.truth.precision_all:.0%} of {row.truth.judged:,}"
        share = f"{row.accepted:,} ({row.accepted / row.proposed:.0%})"
        table.add_row(row.feature, f"{row.proposed:,}", share, f"{row.mean_score:.3f}", true)
    console().print(table)
    if found.rejected:
        table = Table("rejected feature", "score", "true", "record", "report")
        for item in found.rejected:
            true = {None: "?", True: "yes", False: "no"}[item.true]
            table.add_row(item.feature, f"{item.score:.3f}", true, item.record_id, item.report)
        console().print(table)


def print_status(runs: "list[RunInfo]", validations: list[dict[str, Any]]) -> None:
    """Print the runs and validations of a store."""
    from rich.table import Table

    table = Table("run", "model", "prompt", "answers", "bad", "features", "output tokens", "since")
    for row in runs:
        counts = f"{row.answers:,}", _counted(row.problems), f"{row.features:,}", f"{row.output_tokens:,}"
        table.add_row(row.key, row.model, row.prompt or "-", *counts, row.created)
    console().print(table)
    keys = {row.id: row.key for row in runs}
    table = Table("validation", "run", "model", "rule", "accepted", "of", "data")
    for found in validations:
        rule, report = found["rule"], found["report"]
        said = f"{rule['score']} {rule['threshold']}" if rule["quantile"] is None else f"best {rule['quantile']:.0%}"
        accepted, proposed = f"{report['accepted']:,}", f"{report['proposed']:,}"
        table.add_row(str(found["id"]), keys[found["run_id"]], found["model"], said, accepted, proposed, found["data"])
    if validations:
        console().print(table)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
