"""`fgclep evaluate retrieval`: how well a search by text finds ECGs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate import options
from cli.output import print_json, say

if TYPE_CHECKING:
    from fgclep.evaluation.results import Scored
    from fgclep.evaluation.retrieval import RetrievalResult
    from fgclep.evaluation.retrievers import Retriever
    from fgclep.evaluation.search_set import SearchSet

SearchSetName = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help=f"ptbxl-all (71 statements), synthetic (a tree of `fgclep data synth`), or a benchmark: "
        f"{options.BENCHMARK_NAMES}.",
        rich_help_panel="Input",
    ),
]
OptionalSplit = Annotated[
    options.SplitName | None,
    typer.Option(
        "--split",
        help="Which part; val unless given. A synthetic tree has none.",
        rich_help_panel="Input",
        show_default=False,
    ),
]


def retrieval(
    dataset: SearchSetName,
    data: options.Data = None,
    split: OptionalSplit = None,
    model: options.Models = None,
    splits: options.Splits = None,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Measure a search by text from all sides.

    Label retrieval: each class by its plain name. Report retrieval: each
    report's own ECG and back, equal reports counted as found, and strictly.
    Compound queries: "A and B", "A without B", "no A". Queries about one lead,
    where the truth names leads (synthetic). Other words: synonyms, descriptions
    of the waveform and shorthand, those of training and others apart. A search
    of the reports by BM25 stands beside the models as the text-only baseline.

    Records with equal scores are in no order: numbers are expected values over
    all orders. Everything, query by query, is in --json and --out.
    """
    from cli.evaluate.retrieval_view import print_results
    from fgclep.evaluation.results import plain, provenance
    from fgclep.evaluation.retrieval import evaluate_retrieval, open_model

    folder = options.data_folder(data, f"fgclep evaluate retrieval --dataset {dataset} --data PATH")
    specs = options.model_specs(model)
    asked = {"dataset": dataset, "data": folder, "split": split, "model": specs, "splits": splits}
    facts = provenance(options.command_words("retrieval", **asked, draws=draws, seed=seed), seed=seed)
    measured: list[tuple[RetrievalResult, Scored]] = []
    baseline: tuple[SearchSet, Retriever, dict[str, int]] | None = None
    for spec in specs:
        with options.embedding(spec, "joint", workers) as embed:
            records, retriever, rejected = open_model(spec, dataset, folder, split, splits=splits, embed=embed)
        measured.append(evaluate_retrieval(records, retriever, rejected, draws=draws, seed=seed))
        if baseline is None and (reader := _bm25(records)) is not None:
            baseline = records, reader, rejected  # the records that the first model could use
    if baseline is not None:
        measured.append(evaluate_retrieval(*baseline, draws=draws, seed=seed))
    if out is not None:
        for result, scored in measured:
            _write(out, facts, result, scored)
    results = [result for result, _ in measured]
    if as_json:
        print_json(plain({**facts, "results": results}))
    else:
        print_results(results)


def _bm25(records: "SearchSet") -> "Retriever | None":
    """Return the text-only baseline; None, told, where its package is not installed."""
    from fgclep.errors import NotSetUpError
    from fgclep.evaluation.retrievers import bm25_retriever

    try:
        return bm25_retriever(records)
    except NotSetUpError as missing:
        say(f"Without the BM25 row: {missing.message} {missing.hint}")
        return None


def _write(out: Path, facts: dict[str, object], result: "RetrievalResult", scored: "Scored") -> None:
    """Write a result and the scores of the classes; the fingerprint keeps models of one name apart."""
    from fgclep.evaluation.results import write_json

    mark = result.fingerprint[:8] if result.encoder != "bm25" else "reports"
    stem = f"retrieval-{result.dataset}-{result.split}-{result.encoder}-{mark}"
    write_json(out / f"{stem}.json", {**facts, "results": [result]})
    scored.save(out / f"{stem}.npz")
    say(f"Wrote {out / stem}.json and .npz")
