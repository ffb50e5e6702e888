"""`fgclep data`: look into a data set, pack it, and write a synthetic one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.datasets.base import Dataset
    from fgclep.datasets.pack_write import PackPlan
    from fgclep.datasets.scan import ScanReport

app = typer.Typer(no_args_is_help=True, help="Look into a data set, pack it, or write a synthetic one.")

_SCHEMA = 1


@app.command()
def scan(
    path: Annotated[Path, typer.Argument(help="The folder of a data set or a pack.", show_default=False)],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Read only the first N records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a folder holds and which records would be rejected, and why; checks a pack. Writes nothing."""
    from fgclep.datasets import open_dataset

    dataset = open_dataset(path)
    report = _scan_with_progress(dataset, limit)
    if as_json:
        typer.echo(json.dumps(_as_json(report), ensure_ascii=False, indent=2))
    else:
        _print_report(report)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist or be empty.")],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many ECGs.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same ECGs.")] = 0,
    fs_hz: Annotated[int, typer.Option("--fs-hz", min=100, max=10_000, help="Sampling rate in Hz.")] = 500,
) -> None:
    """Write synthetic ECGs with known findings as a tree in MIMIC-IV-ECG's layout."""
    from fgclep.datasets.synthetic import write_tree

    write_tree(out, n, seed, fs_hz)
    typer.echo(f"Wrote {n} synthetic ECGs to {out}.", err=True)


@app.command()
def pack(
    path: Annotated[Path, typer.Argument(help="The folder of a data set.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder of the pack: new, empty, or an unfinished pack to go on with.")],
    fs_hz: Annotated[
        int | None,
        typer.Option(
            "--fs", min=50, max=10_000, help="Sampling rate in Hz; the records' own, and the highest, unless given."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Reading processes; half the cores unless given, 0 reads in this one."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what an earlier run made.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and tell the size; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a data set once into few large files, with its rejects, splits and report counts.

    A pack is data like any other: give its folder wherever a command takes --data. Goes on where it was stopped.
    """
    from cli.progress import record_progress
    from fgclep.datasets.pack_write import write_pack
    from indexer.resources import usable_cores

    plan = _plan(path, out, fs_hz, restart)
    say(_announcement(plan, out))
    if dry_run:
        say("This is a dry run: nothing is written.")
        return
    processes = max(1, usable_cores() // 2) if workers is None else workers
    with record_progress(f"packing {plan.dataset.name}") as progress:
        manifest = write_pack(plan, processes, progress)
    if as_json:
        print_json({"schema": _SCHEMA, "path": str(out), "source": manifest["plan"], "counts": manifest["counts"]})
    else:
        _print_pack(manifest)
    say(f"Next: fgclep index build --data {out} --name NAME")


def _plan(path: Path, out: Path, fs_hz: int | None, restart: bool) -> "PackPlan":
    """Open the data at the rate itself where the tree has it, else at the one to resample from."""
    from fgclep.datasets import open_dataset, open_for_rate
    from fgclep.datasets.pack_write import plan_pack

    dataset = open_dataset(path) if fs_hz is None else open_for_rate(path, fs_hz)
    return plan_pack(dataset, out, fs_hz=None if fs_hz == dataset.fs_hz else fs_hz, restart=restart)


def _announcement(plan: "PackPlan", out: Path) -> str:
    from fgclep.datasets.pack_write import check_space

    rate = f" at {plan.dataset.fs_hz} Hz" if plan.dataset.fs_hz else ""
    resampled = f", resampled to {plan.fs_hz} Hz" if plan.fs_hz else ""
    if plan.folder.complete and plan.continues:
        return f"{out} is a finished pack; comparing it with {plan.dataset.root}."
    doing = "Going on packing" if plan.continues else "Packing"
    return (
        f"{doing} {plan.total:,} records of {plan.dataset.name}{rate}{resampled} in {plan.dataset.root}; "
        f"about {check_space(plan) / 1e6:,.1f} MB in {out}."
    )


def _print_pack(manifest: dict[str, Any]) -> None:
    counts = manifest["counts"]
    reports, splits = counts["reports"], counts["splits"]
    rounded = counts["packed"] - counts["bit_for_bit"]
    rates = ", ".join(f"{number:,} at {rate} Hz" for rate, number in counts["rates_hz"].items())
    rows = [
        ("records listed", f"{counts['listed']:,}"),
        ("files missing", f"{counts['missing']:,}"),
        ("rejected", f"{counts['rejected']:,}" + _reasons(counts["rejected_by_reason"])),
        ("packed", f"{counts['packed']:,} of {counts['subjects']:,} subjects"),
        ("sampling rate", rates),
        ("bit for bit", f"{counts['bit_for_bit']:,}" + (f", {rounded:,} rounded to 1 uV" if rounded else "")),
        ("reports to train on", f"{reports['usable']:,}, {reports['unique_texts']:,} different texts"),
    ]
    rows += [
        (f"report {fault}", f"{number:,} ({reports['left_out_means'][fault]})")
        for fault, number in reports["left_out"].items()
    ]
    rows += [
        (split, f"{splits[split]['records']:,} of {splits[split]['subjects']:,} subjects")
        for split in ("train", "val", "test")
    ]
    rows.append(("split by", "; ".join(splits["rules"])))
    console().print(_two_columns(rows))


def _two_columns(rows: list[tuple[str, str]]) -> "Table":
    from rich.table import Table

    table = Table(show_header=False)
    for label, value in rows:
        table.add_row(label, value)
    return table


def _reasons(rejected: dict[str, int]) -> str:
    return f" ({', '.join(f'{number:,} {reason}' for reason, number in rejected.items())})" if rejected else ""


def _scan_with_progress(dataset: "Dataset", limit: int | None) -> "ScanReport":
    from rich.console import Console
    from rich.progress import Progress

    from fgclep.datasets.scan import scan as scan_dataset

    terminal = Console(stderr=True)
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        present = dataset.listed - len(dataset.missing)
        task = progress.add_task("Reading records", total=min(present, limit or present))
        return scan_dataset(dataset, limit, lambda: progress.advance(task))


def _as_json(report: "ScanReport") -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(report)
    fields["rates"] = {f"{rate:g}": count for rate, count in sorted(report.rates.items())}
    fields["rejects"] = {
        reason: {
            "count": rejects.count,
            "examples": [{"record": record, "detail": detail} for record, detail in rejects.examples],
        }
        for reason, rejects in report.rejects.items()
    }
    return {"schema": _SCHEMA, **fields, "rejected": sum(rejects.count for rejects in report.rejects.values())}


def _print_report(report: "ScanReport") -> None:
    screen = console()
    screen.print(f"{report.name} ({report.kind}) in {report.root}")
    screen.print(_two_columns(_rows(report)))
    if report.rejects:
        screen.print("Would be rejected:")
        screen.print(_reject_table(report))
    if report.missing:
        examples = ", ".join(report.missing_examples)
        screen.print(f"{report.missing} listed records have no files here, such as {examples}.")


def _rows(report: "ScanReport") -> list[tuple[str, str]]:
    rejected = sum(rejects.count for rejects in report.rejects.values())
    rows = [("records listed", str(report.listed)), ("files missing", str(report.missing))]
    if report.beyond_limit:
        rows.append(("not read (--limit)", str(report.beyond_limit)))
    rows += [("rejected", str(rejected)), ("usable", str(report.usable))]
    if len(report.offered_rates) > 1:
        offered = ", ".join(f"{rate} Hz" for rate in report.offered_rates)
        rows.append(("rates offered", f"{offered}; read at {report.fs_hz} Hz"))
    rows.append(("sampling rate", ", ".join(f"{n} at {rate:g} Hz" for rate, n in sorted(report.rates.items())) or "-"))
    if report.seconds:
        shortest, longest = report.seconds
        rows.append(("length", f"{shortest:g} s" if shortest == longest else f"{shortest:g} to {longest:g} s"))
    rows += [
        ("subjects", str(report.subjects)),
        ("with a report", str(report.with_report)),
        ("with tags", str(report.with_tags)),
    ]
    if report.flags:
        rows.append(("flagged", ", ".join(f"{count} {flag}" for flag, count in report.flags.most_common())))
    return rows


def _reject_table(report: "ScanReport") -> "Table":
    from rich.table import Table

    table = Table("reason", "records", "such as")
    for reason, rejects in sorted(report.rejects.items(), key=lambda item: -item[1].count):
        table.add_row(reason, str(rejects.count), "\n".join(f"{name}: {why}" for name, why in rejects.examples))
    return table
