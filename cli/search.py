"""`fgclep search` and `fgclep similar`: rank the ECGs of an index for a text, an example, or both."""

import inspect
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import OutputFormat, console, print_rows, say, set_parameters, with_output_flags

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from indexer.open import OpenIndex
    from retrieval.encoder import BundleEncoder
    from retrieval.query import Query
    from retrieval.searcher import Hit, Result

_RANGE = "LOW:HIGH"
_FILTERS = "Filters, applied before the search; a range may leave one side open"
_OUT = "Pictures and files"
_TAGS = "A finding that the report asserts, such as AFIB or TINV@V4, or a code of the data set; repeatable."


def _range_option(name: str, what: str) -> Any:
    return typer.Option(name, metavar=_RANGE, help=f"{what}.", rich_help_panel=_FILTERS)


@with_output_flags
def search(
    ctx: typer.Context,
    *,
    text: Annotated[str | None, typer.Argument(help="A finding in words.", show_default=False)] = None,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="REF", help="An example ECG: record id, study id or WFDB file; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", help="Hits wanted; more than there are means all.")] = 10,
    per_patient: Annotated[int | None, typer.Option("--per-patient", help="At most so many hits per patient.")] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Least score, 0 to 1.")] = None,
    index: Annotated[str | None, typer.Option("--index", help="Name or path of an index (FGCLEP_INDEX).")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Where the index's model is, if it has moved; no other will do.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="EXPR", rich_help_panel=_FILTERS, help="Such as \"age >= 65 and sex = 'F'\"."),
    ] = None,
    sex: Annotated[str | None, typer.Option("--sex", metavar="F|M", rich_help_panel=_FILTERS, help="Sex.")] = None,
    age: Annotated[str | None, _range_option("--age", "Years")] = None,
    rate: Annotated[str | None, _range_option("--rate", "Heart rate in beats per minute")] = None,
    pr: Annotated[str | None, _range_option("--pr", "PR interval in ms")] = None,
    qrs: Annotated[str | None, _range_option("--qrs", "QRS duration in ms")] = None,
    qtc: Annotated[str | None, _range_option("--qtc", "Corrected QT in ms")] = None,
    axis: Annotated[str | None, _range_option("--axis", "QRS axis in degrees")] = None,
    date: Annotated[str | None, _range_option("--date", "Dates as YYYY, YYYY-MM or YYYY-MM-DD")] = None,
    report_has: Annotated[
        list[str] | None,
        typer.Option("--report-has", metavar="TEXT", rich_help_panel=_FILTERS, help="Words in the report; repeatable."),
    ] = None,
    report_lacks: Annotated[
        list[str] | None,
        typer.Option("--report-lacks", metavar="TEXT", rich_help_panel=_FILTERS, help="Words not in it; repeatable."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="CODE", rich_help_panel=_FILTERS, help=_TAGS),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", rich_help_panel=_OUT, help="Draw every hit on ECG paper.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", rich_help_panel=_OUT, help="New folder: WFDB, pictures, tables."),
    ] = None,
    fail_empty: Annotated[bool, typer.Option("--fail-empty", help="Exit 4 when nothing is found.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Name the leads that show the text, for every hit.")
    ] = False,
    output: OutputFormat = OutputFormat.TABLE,
) -> None:
    """Find ECGs by a text, by an example, or by both together."""
    from fgclep.errors import NothingFoundError
    from retrieval.filters import Filters
    from retrieval.query import Query

    filters = Filters(
        where, sex, age, rate, pr, qrs, qtc, axis, date,
        tuple(report_has or ()), tuple(report_lacks or ()), tuple(tag or ()),
    )  # fmt: skip
    query = Query(text, tuple(like or ()), limit, filters, per_patient, min_score)
    opened, encoder, result = _search(query, index, model, export)
    if explain and output is not OutputFormat.IDS:
        result = _explain(result, opened, encoder, model)
    _write_files(opened, result, plot, export)
    _print_result(result, output, demo=_is_demo(opened), detailed=_verbosity(ctx) > 0, index=index)
    if fail_empty and not result.hits:
        raise NothingFoundError(f"None of {result.total} records was found, and --fail-empty asks for an error.")


def similar(ctx: typer.Context, *, ref: str, **options: Any) -> None:
    """Find the ECGs most like one: the same as `search --like REF`."""
    search(ctx, text=None, like=[ref], **options)


_REF = Annotated[str, typer.Argument(metavar="REF", help="Record id, study id or WFDB file.")]
set_parameters(
    similar,
    [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        inspect.Parameter("ref", inspect.Parameter.KEYWORD_ONLY, annotation=_REF),
        *(p for name, p in inspect.signature(search).parameters.items() if name not in {"ctx", "text", "like"}),
    ],
)


def _search(
    query: "Query", index: str | None, model: str | None, export: Path | None
) -> "tuple[OpenIndex, BundleEncoder, Result]":
    """Open the index and answer the query; what would fail at the end is refused first."""
    from cli import settings
    from cli.demo import find_index
    from indexer.open import matching_model, open_index
    from retrieval.cache import QueryCache
    from retrieval.encoder import BundleEncoder
    from retrieval.searcher import Searcher

    query.filters.condition()
    if export is not None:
        from retrieval.export import check_new_folder

        check_new_folder(export)
    # A single query is ranked by one product with all vectors (retrieval.ranking): FAISS would be imported in vain.
    opened = open_index(find_index(index), backend="numpy")
    manifest = opened.manifest
    encoder = BundleEncoder(manifest, lambda: matching_model(manifest, model), QueryCache(settings.home()))
    return opened, encoder, Searcher(opened, encoder).search(query)


def _explain(result: "Result", opened: "OpenIndex", encoder: "BundleEncoder", model: str | None) -> "Result":
    """Add the leads that show the query's text to every hit."""
    if result.query.text is None:
        say("--explain needs a text: examples have no words to look for.")
        return result
    if not result.hits:
        return result
    from indexer.open import matching_model
    from retrieval.evidence import EvidenceReader
    from retrieval.explain import explain
    from retrieval.waveforms import WaveformReader

    reader = EvidenceReader(matching_model(opened.manifest, model), WaveformReader(opened.manifest))
    return explain(result, reader, encoder.encode_text(result.query.text.strip()))


def _write_files(opened: "OpenIndex", result: "Result", plot: Path | None, export: Path | None) -> None:
    """Draw or export the hits where that was asked for."""
    if plot is None and export is None:
        return
    from retrieval.export import export_hits, plot_hits
    from retrieval.waveforms import WaveformReader

    waveforms = WaveformReader(opened.manifest)
    if plot is not None:
        pictures = plot_hits(result, waveforms, plot)
        say(f"Drew {_count(len(pictures), 'picture')} in {plot}")
    if export is not None:
        export_hits(result, waveforms, export)
        say(f"Exported {_count(len(result.hits), 'hit')} to {export}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is_demo(opened: "OpenIndex") -> bool:
    from fgclep.demo import demo_index_path

    return opened.path.resolve() == demo_index_path().resolve()


def _verbosity(ctx: typer.Context) -> int:
    """Return what `-v` and `-q` before the command set."""
    return getattr(ctx.obj, "verbosity", 0)


def _print_result(result: "Result", output: OutputFormat, *, demo: bool, detailed: bool, index: str | None) -> None:
    from retrieval.searcher import Hit

    for note in result.notes:
        say(note)
    if output is not OutputFormat.TABLE:
        document = {**result.to_dict(), **({"demo": True} if demo else {})}
        print_rows(output, document, document["hits"], Hit.columns(), "record")
        return
    screen = console()
    screen.print(_caption(result, detailed), style="bold")
    if result.hits:
        screen.print(_table(result, detailed))
        where = f" --index {shlex.quote(index)}" if index else ""
        say(f"Next: fgclep show {shlex.quote(result.hits[0].row['record_id'])}{where} --plot ecg.png", dim=True)


def _caption(result: "Result", detailed: bool) -> str:
    """Say what was asked, of which index, and how many records were ranked."""
    query = result.query
    given = "  ".join(f"{name.replace('_', '-')} {value}" for name, value in _flat(query.filters.given()))
    asked = repr(query.text) if query.text and not query.like else result.plan
    parts = [asked, f"index {result.index['name']}", f"{result.considered:,} of {result.total:,} records ranked"]
    if given:
        parts.append(given)
    if detailed:
        parts.append(f"model {result.index['model_fingerprint']}, version {result.index['version']}")
    return "  ·  ".join(parts)


def _flat(given: dict[str, object]) -> list[tuple[str, object]]:
    """Name every given filter once per value."""
    return [(name, one) for name, value in given.items() for one in (value if isinstance(value, list) else [value])]


def _table(result: "Result", detailed: bool) -> "Table":
    """Lay the hits out; columns that no hit has a value for are left out."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    scored = result.hits[0].score is not None
    columns: list[tuple[str, list[str]]] = [("#", [str(hit.rank) for hit in result.hits])]
    if scored:
        columns.append(("score", [f"{hit.score:.2f}" for hit in result.hits]))
    if detailed or not scored:
        columns.append(("sim", [f"{hit.similarity:.3f}" for hit in result.hits]))
    columns.append(("pct", [f"{hit.percentile:.1f}" for hit in result.hits]))
    columns.append(("record", [hit.row["record_id"] for hit in result.hits]))
    columns.append(("leads", [" ".join(lead.lead for lead in hit.evidence) for hit in result.hits]))
    columns.append(("age/sex", [_age_sex(hit) for hit in result.hits]))
    for title, name in (("rate", "heart_rate_bpm"), ("QRS", "qrs_duration_ms"), ("QTc", "qtc_ms")):
        columns.append((title, [_number(hit.row[name]) for hit in result.hits]))
    shown = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in shown:
        words = title in {"record", "leads", "age/sex"}
        # On a narrow screen record ids fold rather than lose their end; numbers keep their line.
        table.add_column(title, justify="left" if words else "right", no_wrap=title != "record", overflow="fold")
    table.add_column("report", overflow="fold")
    for number, hit in enumerate(result.hits):
        table.add_row(*(cells[number] for _, cells in shown), _report(hit, result.query.text))
    return table


def _age_sex(hit: "Hit") -> str:
    return f"{_number(hit.row['age_years'])} {hit.row['sex'] or ''}".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _report(hit: "Hit", query: str | None) -> "Text":
    """Return the report on one line, words of the query in bold."""
    from rich.text import Text

    text = Text("; ".join(" ".join(line.split()) for line in hit.row["report"].splitlines()))
    words = [word for word in re.findall(r"\w+", query or "") if len(word) > 2]
    if words:
        text.highlight_regex(rf"(?i)\b(?:{'|'.join(map(re.escape, words))})\b", "bold")
    return text
