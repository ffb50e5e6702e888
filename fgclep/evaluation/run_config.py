"""What `fgclep evaluate all` measures, read from TOML; unknown keys are refused with the nearest one named."""

import difflib
import tomllib
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fgclep.errors import UsageError
from fgclep.evaluation.benchmarks import BENCHMARKS, Split
from fgclep.evaluation.figures_data import finding_names
from fgclep.evaluation.prompts import PROMPT_KINDS
from fgclep.evaluation.search_set import SEARCH_SETS

T = TypeVar("T")


@dataclass(frozen=True)
class ZeroShotConfig:
    """Zero-shot classification by text.

    Attributes:
        prompts: `plain`, `ensemble`, `curated` or prompt files in CKEPE's format, named differently and, in the file,
            relative to its folder.
    """

    prompts: tuple[str, ...] = ("plain", "ensemble", "curated")


@dataclass(frozen=True)
class LinearProbeConfig:
    """A logistic head and nearest neighbours on frozen features.

    Attributes:
        fractions: shares of the training records, in percent.
    """

    fractions: tuple[int, ...] = (1, 10, 100)


@dataclass(frozen=True)
class RetrievalConfig:
    """Retrieval by label, by report, by compound queries, in other words.

    Attributes:
        datasets: what `fgclep evaluate retrieval --dataset` takes.
        bm25: whether a search of the reports stands beside the models.
    """

    datasets: tuple[str, ...] = ("ptbxl-all",)
    bm25: bool = True


@dataclass(frozen=True)
class CalibrationConfig:
    """Scores before and after Platt scaling, of the models that are bundles.

    Attributes:
        dataset: what `fgclep evaluate calibrate --dataset` takes.
    """

    dataset: str = "ptbxl-all"


@dataclass(frozen=True)
class FiguresConfig:
    """Figures: curves of everything that was measured, and pictures of one data set.

    Attributes:
        dataset: of heat map, map and plates; what `fgclep evaluate figures --dataset` takes.
        findings: ids of the map of embeddings, at most six.
        queries: one plate of the first three hits each.
    """

    dataset: str = "ptbxl-all"
    findings: tuple[str, ...] = ("LPR", "INVT", "QWAVE", "STD", "PVC")
    queries: tuple[str, ...] = ("RSR' pattern", "inverted T waves", "low QRS voltage")


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything that one report holds. A section that is not in the file is not measured.

    Attributes:
        models: what `--model` takes; the others are compared with the first, and pictures are of the first.
        benchmarks: what `--dataset` of zero-shot and linear-probe takes.
        data: folder of each data set: `ptbxl`, `cpsc2018`, `csn`, `synthetic`; in the file relative to its folder.
        splits: folder of published split files; without it splits follow from the data sets themselves.
        split: the records to measure on.
        title: of the report.
        seed: of bootstrap, subsets and figures.
        draws: of the bootstrap over subjects.
        workers: processes that read records.
    """

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    data: dict[str, str]
    splits: str | None = None
    split: Split = "val"
    title: str = "Evaluation"
    seed: int = 7
    draws: int = 1000
    workers: int = 1
    zero_shot: ZeroShotConfig | None = None
    linear_probe: LinearProbeConfig | None = None
    retrieval: RetrievalConfig | None = None
    calibration: CalibrationConfig | None = None
    figures: FiguresConfig | None = None

    def data_of(self, dataset: str) -> Path:
        """Return the folder of a benchmark or search set."""
        return Path(self.data[_tree_of(dataset)])

    def datasets(self) -> list[str]:
        """Return all benchmarks and search sets that anything is measured on, each once."""
        names = list(self.benchmarks)
        names += self.retrieval.datasets if self.retrieval else ()
        names += [part.dataset for part in (self.calibration, self.figures) if part]
        return list(dict.fromkeys(names))


def _tree_of(dataset: str) -> str:
    """Return the key of `data` that a benchmark or search set needs: `ptbxl` of `ptbxl-super`."""
    return dataset.partition("-")[0]


def read_evaluate_config(path: Path) -> EvaluateConfig:
    """Read a configuration.

    Raises:
        UsageError: for a missing file, bad TOML, an unknown or missing key, a value of the wrong type, an unknown
            benchmark or finding, or two prompts of one name.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a readable TOML file: {error}.") from error
    config = _read_table(EvaluateConfig, values, str(path))
    if not config.models:
        raise UsageError(f"{path} names no model; expected at least one.")
    for name in config.benchmarks:
        _check_name(name, BENCHMARKS, f"{path}: unknown benchmark")
    trees = tuple(dict.fromkeys(map(_tree_of, SEARCH_SETS)))
    for name in config.data:
        _check_name(name, trees, f"{path}: unknown key in [data]")
    for name in config.datasets():
        _check_name(name, SEARCH_SETS, f"{path}: unknown dataset")
        if _tree_of(name) not in config.data:
            raise UsageError(f"{path}: [data] has no folder for {_tree_of(name)!r}, which {name} needs.")
    if config.figures:
        finding_names(config.figures.findings)

    def absolute(name: str) -> str:
        return str(path.parent / Path(name).expanduser())

    zero_shot = config.zero_shot
    if zero_shot:
        stems = [Path(prompts).stem for prompts in zero_shot.prompts]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice is not None:
            raise UsageError(f"{path}: two of the prompts are named {twice!r}; expected different names.")
        zero_shot = ZeroShotConfig(tuple(p if p in PROMPT_KINDS else absolute(p) for p in zero_shot.prompts))
    return replace(
        config,
        data={name: absolute(folder) for name, folder in config.data.items()},
        splits=None if config.splits is None else absolute(config.splits),
        zero_shot=zero_shot,
    )


def _read_table(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Make a dataclass of a TOML table, checking names and types."""
    types = get_type_hints(kind)
    for key in values:
        _check_name(key, list(types), f"{where}: unknown key")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.default is MISSING and field.name not in values:
            raise UsageError(f"{where} lacks the key {field.name!r}.", "docs/examples/evaluate.toml shows all keys.")
    return kind(**{key: _read_value(types[key], value, f"{where}: {key}") for key, value in values.items()})


def _read_value(kind: Any, value: Any, where: str) -> Any:
    """Check one value against its annotation; lists become tuples, tables dataclasses."""
    options = [option for option in get_args(kind) if option is not type(None)]
    if get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_read_value(options[0], item, where) for item in value)
        raise UsageError(f"{where} is {value!r}; expected a list.")
    if get_origin(kind) is Literal:
        if value in options:
            return value
        raise UsageError(f"{where} is {value!r}; expected one of {', '.join(options)}.")
    if get_origin(kind) is dict:
        if isinstance(value, dict) and all(isinstance(item, options[1]) for item in value.values()):
            return value
        raise UsageError(f"{where} is {value!r}; expected a table of paths.")
    if options:  # X | None
        return _read_value(options[0], value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        if isinstance(value, dict):
            return _read_table(kind, value, where)
        raise UsageError(f"{where} is {value!r}; expected a table.")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = {int: "a whole number", bool: "true or false"}.get(kind, "text")
        raise UsageError(f"{where} is {value!r}; expected {expected}.")
    if kind is int and value < 0:
        raise UsageError(f"{where} is {value}; expected zero or more.")
    return value


def _check_name(name: str, known: "list[str] | tuple[str, ...]", what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}."
        raise UsageError(f"{what} {name!r}.", hint)
