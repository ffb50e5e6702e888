"""The pointing game: does the evidence for a finding point at a lead that shows it?

Synthetic ECGs say which leads show ST elevation, Q waves, low voltage and the like. The game asks for the finding
without naming a lead, takes the lead with the most evidence, and counts how often it is one of the true ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets.synthetic import SyntheticEcg, generate
from fgclep.evaluation.bootstrap import interval, subject_weights
from fgclep.evaluation.results import Interval
from fgclep.findings.catalog import LEAD_KINDS, findings
from fgclep.leads import LEADS
from fgclep.record import EcgRecord

if TYPE_CHECKING:
    from fgclep.models.dual_encoder import FGCLEPModel

Maps = Callable[[EcgRecord, Sequence[str]], NDArray[np.float32]]
"""From a record and t texts to evidence (t, 12, windows)."""

_Say = Callable[["FGCLEPModel", NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

SEED = 4242
"""Of the ECGs the game is played on; training draws from other seeds."""

_KINDS = "lead findings"
_GROUPS = {
    "territories": tuple(f"{kind}_{area}" for kind in ("STE", "STD", "TINV", "Q") for area in ("ANT", "INF", "LAT")),
    "others": ("ANEUR", "LOWT", "LVOLT"),
}
"""Findings with leads besides the lead-wise ones; STE, STD, INVT and QWAVE would repeat those."""


@dataclass(frozen=True)
class Pointing:
    """How often evidence points at a true lead.

    Attributes:
        finding: what was asked for, one of `LEAD_KINDS` or an id of `fgclep.findings.catalog.findings`; `all` for the
            sum of a group.
        group: `lead findings`, `territories`, `others`, or `all`.
        text: the words; empty for `all`.
        queries: how many ECGs were asked, each showing the finding in some leads and not in all.
        shares: name of a method -> share of queries in which its lead with the most evidence is a true one, with a 95 %
            interval over subjects. `uniform` has the same evidence everywhere: what chance gives.
    """

    finding: str
    group: str
    text: str
    queries: int
    shares: dict[str, Interval]


@dataclass(frozen=True)
class _Question:
    finding: str
    group: str
    text: str


@dataclass(frozen=True)
class _Query:
    question: _Question
    subject: str
    hits: tuple[float, ...]


def pointing_game(
    methods: Mapping[str, Maps], ecgs: Iterable[SyntheticEcg], *, draws: int = 1000, seed: int = 0
) -> tuple[Pointing, ...]:
    """Play the game on ECGs whose truth names leads.

    A lead's evidence is the sum over its windows. Where several leads share the first place, the share of true ones
    among them counts.

    Args:
        methods: name -> evidence maps; `uniform` is added.
        ecgs: findings in no lead or in all of them are passed over.
        draws: resamples of the subjects for the intervals; with 0 they are NaN.
        seed: of the resampling.

    Returns:
        One entry for each finding that was asked for, one for each group of them, and `all` at the end.
    """
    players: dict[str, Maps] = {**methods, "uniform": _uniform}
    questions = _questions()
    queries: list[_Query] = []
    for ecg in ecgs:
        true = {question: _true_leads(ecg, question) for question in questions}
        asked = [question for question, leads in true.items() if leads.any() and not leads.all()]
        if not asked:
            continue
        maps = [method(ecg.record, [q.text for q in asked]).sum(axis=2) for method in players.values()]
        for row, question in enumerate(asked):
            hits = tuple(_hit(by_lead[row], true[question]) for by_lead in maps)
            queries.append(_Query(question, ecg.record.info.subject_id, hits))
    games = [(question, [q for q in queries if q.question == question]) for question in questions]
    for group in (_KINDS, *_GROUPS):
        games.append((_Question("all", group, ""), [q for q in queries if q.question.group == group]))
    games.append((_Question("all", "all", ""), queries))
    return tuple(
        Pointing(asked.finding, asked.group, asked.text, len(chosen), _shares(tuple(players), chosen, draws, seed))
        for asked, chosen in games
        if chosen or asked.group == "all"
    )


def play_with_bundle(
    bundle: Path,
    records: int = 200,
    *,
    seed: int = SEED,
    draws: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Pointing, ...]:
    """Play the game with a bundle on synthetic ECGs, beside the same model with random weights.

    Args:
        bundle: a model bundle.
        records: synthetic ECGs to draw; about a third of them show such a finding.
        seed: of the synthetic ECGs.
        draws: see `pointing_game`.
        progress: told after each ECG how many are done, and of how many.

    Returns:
        As `pointing_game`, with the methods `model`, `random` and `uniform`, and with a tag head also `occlusion`: what
        the model would say without it.
    """
    import torch

    from fgclep.evidence import evidence_maps, occlusion_maps
    from fgclep.models.dual_encoder import FGCLEPModel
    from fgclep.preprocessing import EcgProcessor
    from fgclep.pretrained import load_model

    model, processor = load_model(bundle), EcgProcessor.from_pretrained(bundle)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random = FGCLEPModel(model.config).eval()
    random.tokenizer = model.tokenizer

    def maps_of(encoder: FGCLEPModel, say: _Say) -> Maps:
        def maps(record: EcgRecord, texts: Sequence[str]) -> NDArray[np.float32]:
            prepared = processor.prepare(record.waveform, record.fs_hz)
            return say(encoder, prepared, encoder.encode_text(texts))

        return maps

    def drawn() -> Iterable[SyntheticEcg]:
        for number, ecg in enumerate(generate(seed, records, fs_hz=max(processor.fs_hz, 100)), start=1):
            yield ecg
            if progress is not None:
                progress(number, records)

    methods = {"model": maps_of(model, evidence_maps), "random": maps_of(random, evidence_maps)}
    if model.tag_head is not None:
        methods["occlusion"] = maps_of(model, occlusion_maps)
    return pointing_game(methods, drawn(), draws=draws)


def _uniform(record: EcgRecord, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.ones((len(texts), len(LEADS), 1), np.float32)


def _questions() -> list[_Question]:
    catalogue = findings()
    kinds = [_Question(kind, _KINDS, names[0]) for kind, names in LEAD_KINDS.items()]
    return kinds + [_Question(key, group, catalogue[key].name) for group, keys in _GROUPS.items() for key in keys]


def _true_leads(ecg: SyntheticEcg, question: _Question) -> NDArray[np.bool_]:
    if question.group == _KINDS:
        return np.array([f"{question.finding}@{lead}" in ecg.truth for lead in LEADS])
    return np.isin(LEADS, ecg.truth.get(question.finding, ()))


def _hit(by_lead: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    return float(true[by_lead == by_lead.max()].mean())


def _shares(names: Sequence[str], queries: Sequence[_Query], draws: int, seed: int) -> dict[str, Interval]:
    if not queries:
        return {name: Interval(float("nan")) for name in names}
    hits = np.array([query.hits for query in queries])  # (queries, methods)
    weights = subject_weights(tuple(query.subject for query in queries), draws, seed)
    drawn = [np.empty((0, len(names))), *(each @ hits / each.sum(axis=1, keepdims=True) for each in weights)]
    columns = zip(names, hits.mean(axis=0), np.concatenate(drawn).T, strict=True)
    return {name: interval(float(share), column) for name, share, column in columns}
