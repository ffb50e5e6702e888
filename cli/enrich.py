"""`fgclep enrich`: ask for the waveform features behind each report, and keep those that the ECG bears out."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.enrich_output import print_plan, print_status, print_validation, tell_run
from cli.output import print_json, say
from cli.progress import record_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fgclep.enrichment.providers.choose import ProviderChoice
    from fgclep.enrichment.store import EnrichmentStore, RunInfo

app = typer.Typer(
    no_args_is_help=True, help="Step 2: waveform features behind the reports, by a language model or a knowledge base."
)

_LLM = "Language model"
Data = Annotated[Path | None, typer.Option("--data", help="Folder of a data set (FGCLEP_DATA).")]
Store = Annotated[
    Path | None, typer.Option("--store", help="File of answers; enrichment.sqlite in FGCLEP_HOME unless given.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Look at the first N records only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BackendName = Annotated[
    str,
    typer.Option("--backend", metavar="knowledge|vllm|http|replay", help="Who answers: criteria or a model."),
]
Llm = Annotated[
    str | None, typer.Option("--llm", help="Directory, hub id or the server's name of the model.", rich_help_panel=_LLM)
]
Temperature = Annotated[float, typer.Option("--temperature", min=0, help="0: the likeliest.", rich_help_panel=_LLM)]
TopP = Annotated[float, typer.Option("--top-p", min=0, max=1, help="Nucleus sampling.", rich_help_panel=_LLM)]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=16, help="Of one answer.", rich_help_panel=_LLM)]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.", rich_help_panel=_LLM)]
Answers = Annotated[Path | None, typer.Option("--answers", help="Recorded answers, for --backend replay.")]
RunKey = Annotated[
    str | None,
    typer.Option("--run", help="Key of a run (`status` lists them) or its beginning; the only one by default."),
]


@app.callback()
def enrich() -> None:
    """Step 2: waveform features behind the reports, by a language model or a knowledge base."""


@app.command()
def plan(
    data: Data = None,
    backend: BackendName = "knowledge",
    llm: Llm = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 320,
    seed: Seed = 0,
    answers: Answers = None,
    rate: Annotated[
        list[float] | None,
        typer.Option("--tokens-per-second", min=1e-9, help="Output tokens per second of your machine; repeatable."),
    ] = None,
    limit: Limit = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Count unique reports, tokens and hours before anything is spent. Writes nothing."""
    from fgclep.enrichment.plan import free_plan, make_plan, open_tokenizer

    choice = _choice(backend, llm, (temperature, top_p, max_tokens, seed), answers=answers)
    identity = choice.identity()
    worklist = _collect(_data(data), limit)
    answered: set[str] = set()
    each: float | None = None
    if _store_path(store).is_file():
        with _opened(store) as opened:
            run_id = opened.find_run(identity)
            if run_id is not None:
                answered = opened.answered(run_id)
                known = next(run for run in opened.runs() if run.id == run_id)
                each = known.output_tokens / known.answers if known.output_tokens else None
    if choice.generates:
        # An A100 gives about 3,000 to 6,000 tokens a second with a model of 8 billion parameters, an H100 twice that.
        made = make_plan(worklist, answered, each, open_tokenizer(identity.model), rate or [3000.0, 6000.0, 12000.0])
    else:
        made = free_plan(worklist, answered)
    if as_json:
        from fgclep.evaluation.results import plain

        totals = {"prompt_tokens": made.prompt_tokens, "output_tokens": made.output_tokens}
        print_json({"schema": 1, "run": identity.key, "model": identity.model, **plain(made), **totals})
    else:
        print_plan(f"{identity.key} ({identity.model})", made)


@app.command()
def run(
    ctx: typer.Context,
    data: Data = None,
    backend: BackendName = "knowledge",
    llm: Llm = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 320,
    seed: Seed = 0,
    answers: Answers = None,
    url: Annotated[
        str,
        typer.Option("--url", help="Base of the server, for --backend http.", rich_help_panel=_LLM),
    ] = "http://127.0.0.1:8000/v1",
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="File with the server's key; else OPENAI_API_KEY.", rich_help_panel=_LLM),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Requests under way at once.", rich_help_panel=_LLM)
    ] = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for one answer.", rich_help_panel=_LLM)
    ] = 120.0,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Of one request that failed.", rich_help_panel=_LLM)
    ] = 3,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--override", help="Engine argument as key=value, for vllm; repeatable.", rich_help_panel=_LLM
        ),
    ] = None,
    slice_size: Annotated[
        int | None, typer.Option("--slice", min=1, help="Reports asked about and stored at a time.")
    ] = None,
    limit: Limit = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Ask about every unique report that has no answer yet; repeat the command to go on after a stop."""
    from fgclep.enrichment.run import run_enrichment
    from fgclep.errors import InterruptedWork

    choice = _choice(
        backend,
        llm,
        (temperature, top_p, max_tokens, seed),
        answers=answers,
        url=url,
        key_file=key_file,
        concurrency=concurrency,
        timeout_s=timeout,
        retries=retries,
        engine=_parse_engine(engine or []),
    )
    refuse_network(choice, offline=bool(ctx.find_root().params.get("offline")))
    worklist = _collect(_data(data), limit)
    provider = choice.open()
    with _opened(store, create=True) as opened, record_progress("Asking") as progress:
        try:
            tally = run_enrichment(opened, worklist.texts, provider, slice_size, progress)
        except KeyboardInterrupt as error:
            raise InterruptedWork("Asking was stopped; answers so far are kept.", "Repeat the command.") from error
    tell_run(provider.identity.key, worklist.without_report, tally, as_json=as_json)


@app.command()
def validate(
    data: Data = None,
    run_key: RunKey = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Bundle of the coarse model; the shipped one unless given.")
    ] = None,
    score: Annotated[
        str, typer.Option("--score", metavar="cosine|sigmoid|calibrated", help="What the threshold is applied to.")
    ] = "cosine",
    threshold: Annotated[float, typer.Option("--threshold", help="Least score; the paper's is 0.95.")] = 0.95,
    quantile: Annotated[
        float | None,
        typer.Option(
            "--quantile", help="Keep this share of each feature's proposals instead; rare features are judged together."
        ),
    ] = None,
    limit: Limit = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read records.")] = 2,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Rejected features to show.")] = 10,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Score every proposed feature against its ECG and keep those that pass."""
    from cli.settings import home, text
    from fgclep.enrichment.scoring import Rule, Score
    from fgclep.enrichment.validate import store_outcome, validate_features
    from fgclep.pretrained import resolve_model

    rule = Rule(_member(Score, "--score", score), threshold, quantile)
    root = _data(data)
    bundle = resolve_model(text("model", model))
    with _opened(store) as opened:
        chosen = _find_run(opened.runs(), run_key)
        with record_progress("Scoring") as progress:
            outcome = validate_features(
                root,
                bundle,
                opened.features_by_hash(chosen.id),
                rule,
                cache=home() / "cache" / "embeddings",
                limit=limit,
                workers=workers,
                examples=examples,
                progress=lambda done, total: progress(_Encoded(total, done)),
            )
        number = store_outcome(opened, chosen.id, root, outcome)
    if outcome.validation.warning:
        say(f"warning: {outcome.validation.warning}")
    if as_json:
        from fgclep.evaluation.results import plain

        print_json({"schema": 1, "validation": number, "run": chosen.key, **plain(outcome.validation)})
    else:
        print_validation(number, chosen.key, outcome.validation)
    say(f"Next: fgclep enrich export OUT.jsonl --validation {number}")


@app.command()
def status(store: Store = None, as_json: Json = False) -> None:
    """List runs and validations."""
    from dataclasses import asdict

    with _opened(store) as opened:
        runs, validations = opened.runs(), opened.validations()
    if as_json:
        print_json({"schema": 1, "runs": [asdict(run) for run in runs], "validations": validations})
        return
    print_status(runs, validations)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write: JSONL, or CSV where the name ends in .csv.")],
    validation: Annotated[
        int | None, typer.Option("--validation", help="Number of a validation; the last one.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Write a run's raw answers for replay, not enriched reports.")
    ] = False,
    run_key: RunKey = None,
    data: Annotated[Path | None, typer.Option("--data", help="Where the data set is, if it has moved.")] = None,
    limit: Limit = None,
    store: Store = None,
) -> None:
    """Write the enriched reports for training, or the recorded answers for replay."""
    from itertools import islice

    from fgclep.datasets import open_dataset
    from fgclep.enrichment.export import enriched_rows, write_answers, write_rows
    from fgclep.enrichment.providers.base import RunIdentity, Sampling
    from fgclep.errors import NotSetUpError

    with _opened(store) as opened:
        if answers:
            chosen = _find_run(opened.runs(), run_key)
            sampling = None if chosen.sampling is None else Sampling(**chosen.sampling)
            identity = RunIdentity(chosen.prompt, chosen.model, sampling)
            count = write_answers(out, identity, opened.iter_answers(chosen.id))
            say(f"Wrote {count:,} answers of {chosen.model} to {out}.")
            return
        found = [row for row in opened.validations() if validation in (None, row["id"])]
        if not found:
            what = "nothing was validated yet" if validation is None else f"there is no validation {validation}"
            raise NotSetUpError(f"{opened.path}: {what}.", "fgclep enrich validate --data PATH")
        accepted = opened.accepted(found[-1]["id"])
    infos = islice(open_dataset(data or Path(found[-1]["data"])).iter_infos(), limit)
    count = write_rows(out, enriched_rows(infos, accepted))
    say(f"Wrote {count:,} records to {out}; {len(accepted):,} records have accepted features.")


@dataclass(frozen=True)
class _Encoded:
    """Records encoded, as `record_progress` wants to hear of them."""

    total: int
    done: int
    resumed: int = 0
    rejected: int = 0


def _member(kind: Any, option: str, value: str) -> Any:
    from fgclep.errors import UsageError

    try:
        return kind(value)
    except ValueError:
        raise UsageError(
            f"{option} is {value!r}; expected one of {', '.join(kind)}.", f"{option} {next(iter(kind))}"
        ) from None


def _choice(
    backend: str, llm: str | None, sampling: tuple[float, float, int, int], **settings: Any
) -> "ProviderChoice":
    from fgclep.enrichment.providers.base import Sampling
    from fgclep.enrichment.providers.choose import Backend, ProviderChoice

    return ProviderChoice(_member(Backend, "--backend", backend), llm, Sampling(*sampling), **settings)


def _parse_engine(pairs: list[str]) -> dict[str, Any]:
    if not pairs:
        return {}
    from fgclep.training.settings import parse_overrides

    return parse_overrides(pairs)


def refuse_network(choice: "ProviderChoice", *, offline: bool) -> None:
    """Keep to this machine when `--offline` was said, on the command line or in a setting.

    Raises:
        UsageError: if the provider is a server elsewhere.
    """
    from urllib.parse import urlsplit

    from cli import settings
    from fgclep.enrichment.providers.choose import Backend
    from fgclep.errors import UsageError

    host = urlsplit(choice.url).hostname or ""
    local = host in ("localhost", "::1") or host.startswith("127.")
    if choice.backend is Backend.HTTP and not local and settings.resolve("offline", offline or None).value:
        raise UsageError(
            f"{choice.url} is not on this machine, and the network is off.",
            "Leave --offline out and unset FGCLEP_OFFLINE, or let the backend knowledge answer.",
        )


def _data(flag: Path | None) -> Path:
    from cli.settings import text
    from fgclep.errors import UsageError

    found = text("data", None if flag is None else str(flag))
    if found is None:
        raise UsageError("No data set was named.", "--data PATH")
    return Path(found)


def _store_path(flag: Path | None) -> Path:
    from cli.settings import home

    return flag or home() / "enrichment.sqlite"


@contextmanager
def _opened(flag: Path | None, *, create: bool = False) -> "Iterator[EnrichmentStore]":
    from fgclep.enrichment.store import EnrichmentStore

    store = EnrichmentStore(_store_path(flag), create=create)
    try:
        yield store
    finally:
        store.close()


def _collect(data: Path, limit: int | None) -> Any:
    from itertools import islice

    from fgclep.datasets import open_dataset
    from fgclep.enrichment.worklist import collect_texts

    return collect_texts(islice(open_dataset(data).iter_infos(), limit))


def _find_run(runs: "list[RunInfo]", key: str | None) -> "RunInfo":
    from fgclep.errors import UsageError

    found = [run for run in runs if run.key.startswith(key or "")]
    if len(found) != 1:
        have = ", ".join(f"{run.key} ({run.model})" for run in runs) or "none"
        asked = "several runs are stored" if key is None else f"{key!r} names {len(found)} runs"
        raise UsageError(f"{asked}; the runs are: {have}.", "--run KEY")
    return found[0]
