"""The third phase of training: what it changes and what not, resume, and that leads are learned."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cli.main import run
from fgclep.datasets.synthetic import generate, generate_one
from fgclep.errors import UsageError
from fgclep.evidence import evidence_maps
from fgclep.leads import LEADS
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import load_model
from fgclep.training.labels import finding_ids, synthetic_labels
from fgclep.training.statements import StatementSampler
from fgclep.training.tag_side import TagSettings, train_tag_side
from fgclep.training.training_set import TrainingSet
from fgclep.training.waveforms import Waveforms, to_units
from tests.fgclep.test_training import ptbxl_tree  # noqa: F401

QUICK = TagSettings(steps=4, batch_size=6, statements=8)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    ecgs = [ecg.record for ecg in generate(9, 24, fs_hz=100)]
    units = to_units(np.stack([record.waveform for record in ecgs]))
    labels = synthetic_labels([record.info for record in ecgs])
    blocks = [Waveforms.of_array(units[:8]), Waveforms.of_array(units[8:])]
    ids = [record.info.record_id for record in ecgs]
    return TrainingSet(blocks, labels, np.zeros(labels.shape, bool), [""] * 24, ids)


def _train(bundle: Path, data: TrainingSet, settings: TagSettings, checkpoint: Path, said: list[str]) -> FGCLEPModel:
    model = load_model(bundle)
    sampler = StatementSampler([], finding_ids(), leads_per_step=4)
    train_tag_side(model, data, sampler, settings, 100, checkpoint, said.append)
    return model


def test_only_the_head_changes(
    tiny_bundle: Path, data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgclep.training.tag_side.STATEMENT_ROUNDS", 1)
    before, after = load_model(tiny_bundle), _train(tiny_bundle, data, QUICK, tmp_path / "tag.pt", [])
    state = after.state_dict()
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert {name.partition(".")[0] for name in state.keys() - before.state_dict().keys()} == {"tag_head", "tag_stem"}
    assert sum(p.numel() for p in after.tag_stem.parameters()) + 4 * 256**2 < 400_000
    assert all(parameter.requires_grad for parameter in after.parameters())


@pytest.mark.parametrize("alignment", ["attention", "transport"])
def test_an_interrupted_run_goes_on_as_if_unbroken(
    tiny_bundle: Path, data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alignment: str
) -> None:
    monkeypatch.setattr("fgclep.training.tag_side.STATEMENT_ROUNDS", 1)
    monkeypatch.setattr("fgclep.training.tag_side.STEPS_PER_CHECKPOINT", 2)
    settings = TagSettings(steps=4, alignment=alignment, batch_size=6, statements=8)
    whole = _train(tiny_bundle, data, settings, tmp_path / "whole.pt", [])

    class Killed(list):  # type: ignore[type-arg]
        def append(self, line: str) -> None:
            if line.startswith("tag step 2/"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tiny_bundle, data, settings, tmp_path / "broken.pt", Killed())
    said: list[str] = []
    resumed = _train(tiny_bundle, data, settings, tmp_path / "broken.pt", said)
    assert "resuming after tag step 2" in said
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    other = TagSettings(steps=4, alignment=alignment, batch_size=6, statements=8, seed=8)
    with pytest.raises(UsageError, match="other settings"):
        _train(tiny_bundle, data, other, tmp_path / "broken.pt", [])


def test_a_bundle_gets_a_head_by_the_command_line(
    tiny_bundle: Path,
    ptbxl_tree: Path,  # noqa: F811
    tmp_path: Path,
    fgclep_home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journey: train a head, check the bundle, ask where a text is seen; the bundle's vectors stay."""
    monkeypatch.setattr("fgclep.training.tag_side.STATEMENT_ROUNDS", 1)
    where = ["--model", str(tiny_bundle), "--data", str(ptbxl_tree), "--out", str(tmp_path / "run")]
    assert run(["train", "tags", *where, "--steps", "2", "--synthetic", "6", "--workers", "1"]) == 0
    bundle = Path(capsys.readouterr().out.strip())
    assert run(["model", "check", str(bundle)]) == 0
    tagged, plain = load_model(bundle), load_model(tiny_bundle)
    ecg = generate_one(5, 2, fs_hz=100).record.waveform
    assert tagged.evidence(ecg, "sinus rhythm").shape == (12, 10)
    np.testing.assert_array_equal(tagged.encode_ecg(ecg[None]), plain.encode_ecg(ecg[None]))
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert card.startswith((tiny_bundle / "README.md").read_text(encoding="utf-8").rstrip())
    assert "## Tag head" in card and "2 steps" in card
    assert run(["train", "tags", *where, "--alignment", "sinkhorn"]) == 2
    capsys.readouterr()
    assert run(["train", "tags", *where, "--steps", "2", "--synthetic", "7"]) == 2
    assert "another synthetic_records" in capsys.readouterr().err


def test_unknown_alignment_is_refused() -> None:
    with pytest.raises(UsageError, match="attention, transport"):
        TagSettings(alignment="sinkhorn")


def test_evidence_learns_the_lead(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise with a bump in one lead each, labelled by lead: asked without a lead, the evidence points at the bump."""
    monkeypatch.setattr("fgclep.training.tag_side.STATEMENT_ROUNDS", 2)
    monkeypatch.setattr("fgclep.training.tag_side.augment", lambda waveforms, fs_hz, rng: waveforms)
    rng = np.random.default_rng(0)
    ids = finding_ids()
    count = 160
    waveforms = rng.normal(0, 0.05, (count, 12, 1000)).astype(np.float32)
    labels = np.zeros((count, len(ids)), np.int8)
    columns = [ids.index(f"STE@{lead}") for lead in LEADS]
    labels[:, columns] = -1
    shown = rng.integers(0, 12, count)
    for row, lead in enumerate(shown):
        for start in range(30, 1000, 80):
            waveforms[row, lead, start : start + 25] += 0.5
        labels[row, columns[lead]] = 1
    blocks = [Waveforms.of_array(to_units(waveforms[start:end])) for start, end in ((0, 60), (60, 140))]
    data = TrainingSet(blocks, labels[:140], np.zeros((140, len(ids)), bool), [""] * 140, ["made"] * 140)
    settings = TagSettings(steps=30, batch_size=18, statements=8, learning_rate=1e-2)
    model = _train(tiny_bundle, data, settings, tmp_path / "tag.pt", [])
    text = model.encode_text(["ST elevation"])
    found = [int(evidence_maps(model, ecg, text)[0].sum(axis=1).argmax()) for ecg in waveforms[140:]]
    assert np.mean(found == shown[140:]) > 0.8
