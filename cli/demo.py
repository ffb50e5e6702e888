"""The built-in demo: which index a command opens when there is none, and `fgclep demo`, a first look at everything."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import settings
from cli.output import say

if TYPE_CHECKING:
    from retrieval.searcher import Result

DEMO = "demo"
QUERIES = ("low QRS voltage", "inverted T waves", "RSR' pattern in V1")
WITHOUT_NOISE = "flags not like '%quality:%'"
_SHOWN = 5


def find_index(flag: str | None) -> Path:
    """Find the index version that a command works on.

    Order: `--index`, `FGCLEP_INDEX`, `fgclep.toml`, the user file, the home's default index, the built-in demo. The
    demo says once, on stderr, what it is; it also answers to the name `demo`, where no index has it.

    Args:
        flag: what `--index` gave, a name or a path.

    Raises:
        NotSetUpError: if the index asked for does not exist.
        UsageError: if there are several indexes and none is the default.
    """
    from fgclep.demo import demo_index_path
    from indexer.home import list_indexes

    if settings.text("index", flag) is None and not list_indexes(settings.home()):
        _announce(demo_index_path())
        return demo_index_path()
    return find_published_index(flag)


def find_published_index(flag: str | None) -> Path:
    """Find an index version as `find_index` does, but take the demo only when it is asked for by its name."""
    from fgclep.demo import demo_index_path
    from indexer.home import list_indexes, resolve_index

    home, asked = settings.home(), settings.text("index", flag)
    if asked == DEMO and DEMO not in {entry.name for entry in list_indexes(home)}:
        return demo_index_path()
    return resolve_index(asked, home)


def _announce(path: Path) -> None:
    from indexer.manifest import read_manifest

    say(
        f"Using the built-in demo index: {read_manifest(path).counts.indexed} synthetic ECGs. For your own: "
        "fgclep data scan PATH, then fgclep index build --data PATH --name NAME"
    )


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the picture of the best hit.")] = Path("fgclep-demo"),
) -> None:
    """Try it: three searches in the built-in demo, and the best hit drawn on ECG paper.

    Needs no index, no data and no network; writes the picture, and keeps the three query vectors for next time.
    """
    from fgclep.demo import demo_index_path
    from indexer.open import matching_model, open_index
    from retrieval.cache import QueryCache
    from retrieval.encoder import BundleEncoder
    from retrieval.filters import Filters
    from retrieval.paper import draw_ecg
    from retrieval.query import Query
    from retrieval.searcher import Searcher
    from retrieval.waveforms import WaveformReader

    index = open_index(demo_index_path())
    manifest = index.manifest
    typer.echo(f"The built-in demo: {manifest.counts.indexed} synthetic ECGs, searched by model {manifest.model.name}.")
    encoder = BundleEncoder(manifest, lambda: matching_model(manifest), QueryCache(settings.home()))
    searcher = Searcher(index, encoder)
    clean = Filters(where=WITHOUT_NOISE)
    results = [searcher.search(Query(text=text, limit=_SHOWN, filters=clean)) for text in QUERIES]
    for result in results:
        _print_result(result)
    best = results[0].hits[0]
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "best-hit.png"
    record = WaveformReader(manifest).read(best.row)
    draw_ecg(record, picture, title=f"{QUERIES[0]}: score {best.score:.2f}")
    typer.echo(f"\nThe best hit for {QUERIES[0]!r}, {record.info.record_id}, is drawn in {picture}")
    typer.echo('Next: fgclep search "left bundle branch block", or fgclep data scan PATH for your own ECGs.')


def _print_result(result: "Result") -> None:
    typer.echo(f'\nfgclep search "{result.query.text}" --where "{result.query.filters.where}"')
    for hit in result.hits:
        report = "; ".join(hit.row["report"].splitlines())
        line = f"  {hit.rank}  score {hit.score:.2f}  {hit.row['record_id']:<18}  {report}"
        typer.echo(textwrap.fill(line, 110, subsequent_indent=" " * 37, replace_whitespace=False))
