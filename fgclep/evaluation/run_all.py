"""`fgclep evaluate all`: everything that a configuration asks for, in parts that are kept."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fgclep import __version__
from fgclep.datasets import Dataset
from fgclep.errors import FgclepError
from fgclep.evaluation.benchmarks import BENCHMARKS, Split
from fgclep.evaluation.calibrate_bundle import calibrate_bundle
from fgclep.evaluation.compare import compare
from fgclep.evaluation.embeddings import Embedded, Kind, embed
from fgclep.evaluation.encoders import Encoder, open_encoder
from fgclep.evaluation.figures_data import DrawPlate
from fgclep.evaluation.figures_write import (
    MOST_PANELS,
    Shown,
    open_shown,
    write_curves,
    write_heat_map,
    write_map,
    write_plates,
    write_reliability,
)
from fgclep.evaluation.linear_probe import linear_probe
from fgclep.evaluation.prompts import prompts_for
from fgclep.evaluation.results import Scored
from fgclep.evaluation.retrieval import evaluate_retrieval, open_model
from fgclep.evaluation.retrievers import bm25_retriever
from fgclep.evaluation.run_config import EvaluateConfig
from fgclep.evaluation.run_parts import Outcome, Part, Product, run_parts
from fgclep.evaluation.search_set import SYNTHETIC, open_search_set
from fgclep.evaluation.zero_shot import Embed, zero_shot
from fgclep.pretrained import CALIBRATION_NAME, resolve_model
from fgclep.record import RecordInfo

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Given what is encoded, offers a function that is called with records done and records in all."""


@dataclass(frozen=True)
class Tools:
    """What a run needs from outside.

    Attributes:
        cache: folder of cached vectors.
        progress: shows how far encoding is.
        draw_plate: draws a plate of hits.
        say: told a line per part.
    """

    cache: Path
    progress: Progress
    draw_plate: DrawPlate
    say: Callable[[str], None]


@dataclass(frozen=True)
class _Model:
    spec: str
    name: str
    fingerprint: str
    joint: bool
    fs_hz: float

    @property
    def label(self) -> str:
        """Name files; the fingerprint keeps models of one name apart."""
        return f"{self.name}-{self.fingerprint[:8]}"


def evaluate_all(config: EvaluateConfig, out: Path, tools: Tools) -> list[Outcome]:
    """Measure, compare and draw everything of a configuration, or take what an earlier run kept in the same folder.

    Returns:
        What became of each part, failed ones included.

    Raises:
        FgclepError: if a model cannot be opened.
    """
    run = _Run(config, tools, [_describe(spec) for spec in dict.fromkeys(config.models)])
    outcomes = run_parts(run.measurements(), out, tools.say)
    return outcomes + run_parts([*run.comparisons(outcomes), *run.figures(outcomes)], out, tools.say)


def _describe(spec: str) -> _Model:
    encoder = open_encoder(spec)
    return _Model(spec, encoder.name, encoder.fingerprint, encoder.joint, encoder.fs_hz)


@dataclass
class _Run:
    """Makes the parts of one configuration."""

    config: EvaluateConfig
    tools: Tools
    models: list[_Model]
    _hashes: dict[tuple[str, str | None, float], str] = field(default_factory=dict)

    @cached_property
    def joint(self) -> list[_Model]:
        """The models that can be searched by text."""
        return [model for model in self.models if model.joint]

    def measurements(self) -> list[Part]:
        config = self.config
        parts: list[Part] = []
        if config.zero_shot:
            parts += [
                self._zero_shot(model, name, prompts)
                for name in config.benchmarks
                for model in self.joint
                for prompts in config.zero_shot.prompts
            ]
        if config.linear_probe:
            parts += [self._linear_probe(model, name) for name in config.benchmarks for model in self.models]
        for name in config.retrieval.datasets if config.retrieval else ():
            parts += [self._retrieval(model, name) for model in self.joint]
            if config.retrieval and config.retrieval.bm25:
                parts.append(self._bm25(name))
        if config.calibration:
            bundles = [model for model in self.models if ":" not in model.spec]
            parts += [self._calibration(model, config.calibration.dataset) for model in bundles]
        return parts

    def comparisons(self, outcomes: Sequence[Outcome]) -> list[Part]:
        """Compare every other model with the first, by their zero-shot scores."""
        of_first = [each for each in _done(outcomes, "zero-shot") if each.inputs["spec"] == self.joint[0].spec]
        pairs = [
            (f"{a.result['benchmark']}, {Path(a.result['prompts']).stem} prompts: {b.result['encoder']}", a, b)
            for a in of_first
            for b in _done(outcomes, "zero-shot")
            if b.name != a.name and all(a.result[key] == b.result[key] for key in ("benchmark", "prompts"))
        ]
        if not pairs:
            return []
        draws, seed = max(self.config.draws, 100 * len(pairs)), self.config.seed

        def run(folder: Path) -> Product:
            load = Scored.load
            loaded = [(name, load(folder / a.files[0]), load(folder / b.files[0])) for name, a, b in pairs]
            found = compare(loaded, "auc", draws, seed)
            first = pairs[0][1].result["encoder"]
            rows = [{**vars(each), "real": each.real} for each in found]
            return Product({"first": first, "draws": draws, "seed": seed, "comparisons": rows})

        inputs = self._inputs(pairs=[(a.key, b.key) for _, a, b in pairs], draws=draws, seed=seed)
        return [Part("comparison", "comparison", inputs, run)]

    def figures(self, outcomes: Sequence[Outcome]) -> list[Part]:
        """Draw the curves of the first model with the first prompts, its calibration, and the pictures of the paper."""
        if not self.config.figures or not self.joint:
            return []
        spec = self.joint[0].spec
        parts = [
            self._curves(each)
            for each in _done(outcomes, "zero-shot")
            if self.config.zero_shot
            and (each.inputs["spec"], each.result["prompts"]) == (spec, self.config.zero_shot.prompts[0])
        ]
        parts += [self._reliability(each) for each in _done(outcomes, "calibration") if each.inputs["spec"] == spec]
        return [*parts, *self._pictures(self.config.figures.dataset)]

    def _zero_shot(self, model: _Model, name: str, prompts: str) -> Part:
        config = self.config
        part = f"zero-shot-{name}-{config.split}-{Path(prompts).stem}-{model.label}"

        def run(folder: Path) -> Product:
            result, scored = zero_shot(
                model.spec, name, config.data_of(name), config.split, prompts=prompts,
                embed=self._embed("joint"), splits=self._splits(name), draws=config.draws, seed=config.seed,
            )  # fmt: skip
            file = f"parts/{part}.npz"
            scored.save(folder / file)
            return Product(result, (file,))

        texts = _or_error(lambda: {c: list(texts) for c, texts in prompts_for(name, prompts).items()})
        inputs = self._inputs(
            model, name, also=("val",), prompts=prompts, texts=texts, draws=config.draws, seed=config.seed
        )
        return Part(part, "zero-shot", inputs, run)

    def _linear_probe(self, model: _Model, name: str) -> Part:
        config = self.config
        fractions = config.linear_probe.fractions if config.linear_probe else ()
        part = f"linear-probe-{name}-{config.split}-{model.label}"

        def run(folder: Path) -> Product:
            result, scores = linear_probe(
                model.spec, name, config.data_of(name), config.split, embed=self._embed("features"),
                fractions=fractions, splits=self._splits(name), draws=config.draws, seed=config.seed,
            )  # fmt: skip
            files = []
            for subset, scored in scores.items():
                files.append(f"parts/{part}-{subset}.npz")
                scored.save(folder / files[-1])
            return Product(result, tuple(files))

        inputs = self._inputs(
            model, name, also=("train", "val"), fractions=fractions, draws=config.draws, seed=config.seed
        )
        return Part(part, "linear-probe", inputs, run)

    def _retrieval(self, model: _Model, name: str) -> Part:
        config = self.config

        def run(folder: Path) -> Product:
            opened = open_model(
                model.spec, name, config.data_of(name), self._split(name), splits=self._splits(name),
                embed=self._embed("joint"),
            )  # fmt: skip
            return Product(evaluate_retrieval(*opened, draws=config.draws, seed=config.seed)[0])

        inputs = self._inputs(model, name, draws=config.draws, seed=config.seed)
        return Part(f"retrieval-{name}-{model.label}", "retrieval", inputs, run)

    def _bm25(self, name: str) -> Part:
        config = self.config
        fs_hz = self.models[0].fs_hz

        def run(folder: Path) -> Product:
            records = open_search_set(
                name, config.data_of(name), self._split(name), splits=self._splits(name), fs_hz=fs_hz
            )
            found = evaluate_retrieval(records, bm25_retriever(records), {}, draws=config.draws, seed=config.seed)
            return Product(found[0])

        inputs = self._inputs(None, name, draws=config.draws, seed=config.seed)
        return Part(f"retrieval-{name}-bm25", "retrieval", inputs, run)

    def _calibration(self, model: _Model, name: str) -> Part:
        config = self.config

        def run(folder: Path) -> Product:
            found = calibrate_bundle(
                resolve_model(model.spec), name, config.data_of(name), self._split(name),
                splits=self._splits(name), embed=self._embed("joint"), seed=config.seed,
            )  # fmt: skip
            return Product(found)

        curve = _or_error(lambda: (resolve_model(model.spec) / CALIBRATION_NAME).read_text(encoding="utf-8"))
        inputs = self._inputs(model, name, seed=config.seed, curve=curve)
        return Part(f"calibration-{name}-{model.label}", "calibration", inputs, run)

    def _curves(self, of: Outcome) -> Part:
        def run(folder: Path) -> Product:
            result = of.result
            title = f"{result['benchmark']}, {result['split']} split: {result['encoder']}"
            stem = folder / "figures" / f"{result['benchmark']}-{result['encoder']}"
            scored = Scored.load(folder / of.files[0])
            return _figures(write_curves(scored, title, self.config.draws, self.config.seed, stem), folder)

        inputs = self._inputs(of=of.key, draws=self.config.draws, seed=self.config.seed)
        return Part(f"figure-curves-{of.result['benchmark']}", "figure", inputs, run)

    def _reliability(self, of: Outcome) -> Part:
        def run(folder: Path) -> Product:
            title = f"Scores of {of.result['encoder']} on {of.result['dataset']}, {of.result['split']} split"
            stem = folder / "figures" / f"reliability-{of.result['dataset']}-{of.result['encoder']}"
            return _figures(write_reliability(of.result["before"], of.result["after"], title, stem), folder)

        return Part(f"figure-reliability-{of.result['dataset']}", "figure", self._inputs(of=of.key), run)

    def _pictures(self, name: str) -> list[Part]:
        assert self.config.figures is not None
        keys, queries, seed = self.config.figures.findings, self.config.figures.queries, self.config.seed
        first, shown = self.joint[0], self.joint[:MOST_PANELS]

        def heat_map(folder: Path) -> Product:
            stem = folder / "figures" / f"similarity-{name}-{first.name}"
            return _figures(write_heat_map(self._shown(first, name), seed, stem), folder)

        def on_plane(folder: Path) -> Product:
            models = [self._shown(model, name) for model in shown]
            return _figures(write_map(models, keys, seed, folder / "figures" / f"map-{name}"), folder)

        def plates(folder: Path) -> Product:
            stem = folder / "figures" / f"hits-{name}-{first.name}"
            return _figures(write_plates(self._shown(first, name), queries, self.tools.draw_plate, stem), folder)

        of_shown = [model.fingerprint for model in shown]
        return [
            Part("figure-similarity", "figure", self._inputs(first, name, seed=seed), heat_map),
            Part(
                "figure-map", "figure", self._inputs(first, name, findings=keys, models=of_shown, seed=seed), on_plane
            ),
            Part("figure-hits", "figure", self._inputs(first, name, queries=queries), plates),
        ]

    def _shown(self, model: _Model, name: str) -> Shown:
        return open_shown(
            model.spec, name, self.config.data_of(name), self._split(name), splits=self._splits(name),
            embed=self._embed("joint"),
        )  # fmt: skip

    def _embed(self, kind: Kind) -> Embed:
        def encode(encoder: Encoder, dataset: Dataset, infos: Sequence[RecordInfo]) -> Embedded:
            with self.tools.progress(f"{encoder.name}, {kind} vectors") as progress:
                return embed(encoder, dataset, infos, kind, self.tools.cache, max(1, self.config.workers), progress)

        return encode

    def _splits(self, name: str) -> Path | None:
        return Path(self.config.splits) if self.config.splits and name in BENCHMARKS else None

    def _split(self, name: str) -> Split | None:
        return None if name == SYNTHETIC else self.config.split

    def _inputs(
        self, model: _Model | None = None, name: str | None = None, also: Sequence[Split] = (), **more: object
    ) -> dict[str, Any]:
        """Put down what a part's outcome follows from."""
        inputs: dict[str, Any] = {"fgclep": __version__, **more}
        if model is not None:
            inputs |= {"spec": model.spec, "fingerprint": model.fingerprint}
        if name is not None:
            fs_hz = (model or self.models[0]).fs_hz
            splits = dict.fromkeys((self._split(name), *also))
            inputs |= {"dataset": name, "records": {str(split): self._hash(name, split, fs_hz) for split in splits}}
        return inputs

    def _hash(self, name: str, split: Split | None, fs_hz: float) -> str:
        """Return a hash of the records of a set and what is true of them, or why they cannot be had."""
        key = (name, split, fs_hz)
        if key not in self._hashes:
            self._hashes[key] = str(_or_error(lambda: self._hash_records(name, split, fs_hz)))
        return self._hashes[key]

    def _hash_records(self, name: str, split: Split | None, fs_hz: float) -> str:
        found = open_search_set(name, self.config.data_of(name), split, splits=self._splits(name), fs_hz=fs_hz)
        ids = [(info.record_id, info.subject_id, info.report_lines) for info in found.infos]
        known = json.dumps([str(found.dataset.root), found.dataset.fs_hz, found.classes, found.listed, ids])
        return hashlib.sha256(known.encode() + found.labels.tobytes()).hexdigest()[:16]


def _done(outcomes: Sequence[Outcome], kind: str) -> list[Outcome]:
    return [each for each in outcomes if each.kind == kind and each.error is None]


def _figures(written: Sequence[Path], folder: Path) -> Product:
    files = tuple(path.relative_to(folder).as_posix() for path in written)
    return Product(None, files)


def _or_error(value: Callable[[], Any]) -> Any:
    """Return a value, or what keeps it from being had: the part that needs it will tell the user."""
    try:
        return value()
    except (FgclepError, OSError) as error:
        return str(error)
