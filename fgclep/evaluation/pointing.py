"""The pointing game: does the evidence for a finding point at a lead that shows it?

Synthetic ECGs say which leads show ST elevation, Q waves and the like. The game asks for the finding without naming a
lead, takes the lead with the most evidence, and counts how often it is one of the true ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import subject_weights
from fgclep.evaluation.results import Interval
from fgclep.findings.catalog import LEAD_KINDS
from fgclep.leads import LEADS
from fgclep.record import EcgRecord

Maps = Callable[[EcgRecord, Sequence[str]], NDArray[np.float32]]
"""From a record and t texts to evidence (t, 12, windows)."""

SEED = 4242
"""Of the ECGs the game is played on; training draws from other seeds."""


@dataclass(frozen=True)
class Pointing:
    """How often evidence points at a true lead.

    Attributes:
        kind: the finding (`fgclep.findings.catalog.LEAD_KINDS`), or `all`.
        text: what was asked for; empty for `all`.
        queries: how many ECGs were asked, each showing the finding in some leads and not in all.
        shares: name of a method -> share of queries in which its lead with the most evidence is a true one, with a 95 %
            interval over subjects. `uniform` has the same evidence everywhere: what chance gives.
    """

    kind: str
    text: str
    queries: int
    shares: dict[str, Interval]


@dataclass(frozen=True)
class _Query:
    kind: str
    subject: str
    hits: tuple[float, ...]


def pointing_game(
    methods: Mapping[str, Maps], records: Iterable[EcgRecord], *, draws: int = 1000, seed: int = 0
) -> tuple[Pointing, ...]:
    """Play the game on records whose tags name leads (`STE@V2`).

    A lead's evidence is the sum over its windows. Where several leads share the first place, the share of true ones
    among them counts.

    Args:
        methods: name -> evidence maps; `uniform` is added.
        records: with tags of the form KIND@LEAD; records without, and findings in all leads, are passed over.
        draws: resamples of the subjects for the intervals; with 0 they are NaN.
        seed: of the resampling.

    Returns:
        One entry for each finding that was asked for, and `all` at the end.
    """
    players: dict[str, Maps] = {**methods, "uniform": _uniform}
    queries: list[_Query] = []
    for record in records:
        true = {kind: _true_leads(record, kind) for kind in LEAD_KINDS}
        asked = [kind for kind, leads in true.items() if leads.any() and not leads.all()]
        if not asked:
            continue
        texts = [LEAD_KINDS[kind][0] for kind in asked]
        maps = [method(record, texts).sum(axis=2) for method in players.values()]
        for row, kind in enumerate(asked):
            hits = tuple(_hit(by_lead[row], true[kind]) for by_lead in maps)
            queries.append(_Query(kind, record.info.subject_id, hits))
    kinds = [kind for kind in LEAD_KINDS if any(query.kind == kind for query in queries)]
    games = [(kind, LEAD_KINDS[kind][0], [query for query in queries if query.kind == kind]) for kind in kinds]
    return tuple(
        Pointing(kind, text, len(chosen), _shares(tuple(players), chosen, draws, seed))
        for kind, text, chosen in [*games, ("all", "", queries)]
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
        As `pointing_game`, with the methods `model`, `random` and `uniform`.
    """
    import torch

    from fgclep.datasets.synthetic import generate
    from fgclep.evidence import evidence_maps
    from fgclep.models.dual_encoder import FGCLEPModel
    from fgclep.preprocessing import EcgProcessor
    from fgclep.pretrained import load_model

    model, processor = load_model(bundle), EcgProcessor.from_pretrained(bundle)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random = FGCLEPModel(model.config).eval()
    random.tokenizer = model.tokenizer

    def maps_of(encoder: FGCLEPModel) -> Maps:
        def maps(record: EcgRecord, texts: Sequence[str]) -> NDArray[np.float32]:
            prepared = processor.prepare(record.waveform, record.fs_hz)
            return evidence_maps(encoder, prepared, encoder.encode_text(texts))

        return maps

    def drawn() -> Iterable[EcgRecord]:
        for number, ecg in enumerate(generate(seed, records, fs_hz=max(processor.fs_hz, 100)), start=1):
            yield ecg.record
            if progress is not None:
                progress(number, records)

    return pointing_game({"model": maps_of(model), "random": maps_of(random)}, drawn(), draws=draws)


def _uniform(record: EcgRecord, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.ones((len(texts), len(LEADS), 1), np.float32)


def _true_leads(record: EcgRecord, kind: str) -> NDArray[np.bool_]:
    return np.array([f"{kind}@{lead}" in record.info.tags for lead in LEADS])


def _hit(by_lead: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    return float(true[by_lead == by_lead.max()].mean())


def _shares(names: Sequence[str], queries: Sequence[_Query], draws: int, seed: int) -> dict[str, Interval]:
    if not queries:
        return {name: Interval(float("nan")) for name in names}
    hits = np.array([query.hits for query in queries])  # (queries, methods)
    shares = hits.mean(axis=0)
    if not draws:
        return {name: Interval(float(share)) for name, share in zip(names, shares, strict=True)}
    chunks = subject_weights(tuple(query.subject for query in queries), draws, seed)
    drawn = np.concatenate([weights @ hits / weights.sum(axis=1, keepdims=True) for weights in chunks])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return {name: Interval(*map(float, values)) for name, *values in zip(names, shares, low, high, strict=True)}
