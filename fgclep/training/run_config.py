"""Settings of `fgclep train run`: one table for each step."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fgclep.enrichment.providers.base import Sampling
from fgclep.enrichment.providers.choose import Backend, ProviderChoice
from fgclep.enrichment.scoring import Rule, Score
from fgclep.errors import FgclepError, UsageError
from fgclep.training.config import CoarseConfig, FineConfig, PairConfig, coarse_settings, fine_settings
from fgclep.training.settings import make_settings, parse_overrides, read_toml, refuse_unknown

_TABLES = ("coarse", "enrich", "fine")
_CHOICES = {"backend": tuple(Backend), "score": tuple(Score)}


@dataclass(frozen=True)
class EnrichConfig:
    """Settings of step 2; what they mean is told by `fgclep enrich run --help` and `fgclep enrich validate --help`.

    Attributes:
        backend: who answers; the knowledge base needs no model.
        llm: directory, hub id or the server's name of the model.
        temperature: of the sampling.
        top_p: of the sampling.
        max_tokens: of one answer.
        seed: of the sampling.
        answers: recorded answers, for `replay`.
        url: of the server, for `http`.
        key_file: file with the server's key.
        concurrency: requests to the server under way at once.
        timeout: seconds to wait for one of its answers.
        retries: of one request that failed.
        engine: arguments of vLLM's engine, each as `key=value`.
        score: what the threshold is applied to.
        threshold: least score.
        quantile: share of each feature's proposals to keep instead, rare features together; 0: go by the threshold.

    Raises:
        UsageError: if the server could never answer.
    """

    backend: str = "knowledge"
    llm: str = ""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 320
    seed: int = 0
    answers: str = ""
    url: str = "http://127.0.0.1:8000/v1"
    key_file: str = ""
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 3
    engine: tuple[str, ...] = ()
    score: str = "cosine"
    threshold: float = 0.95
    quantile: float = 0.0

    def __post_init__(self) -> None:
        for key in ("concurrency", "timeout"):
            if not getattr(self, key):
                raise UsageError(f"{key} is {getattr(self, key)}; expected more than zero.")

    def provider(self) -> ProviderChoice:
        """Return who answers, not opened yet.

        Raises:
            UsageError: if an argument of the engine is no `key=value`.
        """
        return ProviderChoice(
            Backend(self.backend),
            self.llm or None,
            Sampling(self.temperature, self.top_p, self.max_tokens, self.seed),
            url=self.url,
            key_file=Path(self.key_file) if self.key_file else None,
            concurrency=self.concurrency,
            timeout_s=self.timeout,
            retries=self.retries,
            answers=Path(self.answers) if self.answers else None,
            engine=parse_overrides(self.engine),
        )

    def rule(self) -> Rule:
        """Return when a feature is accepted.

        Raises:
            UsageError: if the threshold cannot be met.
        """
        return Rule(Score(self.score), self.threshold, self.quantile or None)


@dataclass(frozen=True)
class RunConfig:
    """Settings of all three steps.

    Attributes:
        coarse: of step 1, by the table [coarse]; its key `preset` chooses the recipe.
        enrich: of step 2, by the table [enrich].
        fine: of step 3, by the table [fine].
    """

    coarse: CoarseConfig | PairConfig
    enrich: EnrichConfig
    fine: FineConfig


def read_run_config(path: Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Read settings from a TOML file with the tables [coarse], [enrich] and [fine].

    Step 3 takes the preset of step 1 unless told. After the preset `small` the better half of each feature's proposals
    is kept, unless a score or threshold is told.

    Args:
        path: the file; None for all defaults.
        overrides: settings of the command line, such as `{"fine.epochs": 2}`.

    Raises:
        UsageError: for bad TOML, an unknown table or key (naming the nearest) or an impossible value.
    """
    tables: dict[str, dict[str, Any]] = {}
    for name, table in read_toml(path).items():
        refuse_unknown(name, _TABLES, str(path))
        if not isinstance(table, dict):
            raise UsageError(f"{name} is {table!r} in {path}; expected a table, [{name}].")
        tables[name] = table
    for dotted, value in overrides.items():
        name, _, key = dotted.partition(".")
        refuse_unknown(name, _TABLES, "")
        if not key:
            raise UsageError(f"the setting {dotted!r} names no key; expected such as {name}.seed=7.")
        tables.setdefault(name, {})[key] = value
    coarse, enrich, fine = (tables.get(name, {}) for name in _TABLES)
    preset = coarse.get("preset", "small")
    if preset == "small" and not {"score", "threshold"} & enrich.keys():
        enrich = {"quantile": 0.5} | enrich  # its cosines do not reach the paper's 0.95
    fine = {"preset": preset} | fine
    with hints_of_table("coarse"):
        coarse_config = coarse_settings(coarse, f"{path or ''} [coarse]".strip())
    with hints_of_table("enrich"):
        enrich_config = make_settings(EnrichConfig, enrich, _CHOICES, f"{path or ''} [enrich]".strip())
        enrich_config.rule()
        enrich_config.provider().identity()
    with hints_of_table("fine"):
        fine_config = fine_settings(fine, f"{path or ''} [fine]".strip())
    return RunConfig(coarse_config, enrich_config, fine_config)


@contextmanager
def hints_of_table(table: str, folder: Path | None = None) -> Iterator[None]:
    """Let the hints of errors name the settings as `train run` takes them.

    Args:
        table: of the step inside.
        folder: of the step, which may be begun anew without the steps before it.
    """
    try:
        yield
    except FgclepError as error:
        error.hint = in_table(error.hint, table)
        if folder is not None:
            error.hint = error.hint.replace("Choose a new --out", f"Remove {folder}")
            error.hint = re.sub(r"(?:choose )?a new --out", lambda _: f"remove {folder}", error.hint)
        raise


def in_table(text: str, table: str) -> str:
    """Reword options of a step's own command as settings of its table: `-o KEY=` as `-o TABLE.KEY=`.

    The commands of step 2 have options of their own, and their `-o` takes arguments of vLLM's engine.
    """
    if table != "enrich":
        return re.sub(r"-o (?=\w+=)", f"-o {table}.", text)
    text = re.sub(r"-o (\w+=[^\s,]+)", r"""-o 'enrich.engine=["\1"]'""", text)
    keys = "|".join(field.name.replace("_", "-") for field in fields(EnrichConfig))
    return re.sub(rf"--({keys}) (?=\S)", lambda found: f"-o enrich.{found[1].replace('-', '_')}=", text)
