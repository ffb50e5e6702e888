"""Training on ECG-report pairs: the loss that is taken, resume after a kill, several processes, and what goes wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cli.main import run
from fgclep.errors import CompatibilityError, CorruptionError, DataError, FgclepError, UsageError
from fgclep.losses import clep_loss, pair_labels, pair_logits, soft_label_loss, soft_labels
from fgclep.pretrained import load_model
from fgclep.reports import clean_report
from fgclep.training import pair_trainer
from fgclep.training.config import FineConfig, PairConfig, PairSettings, read_config, read_fine_config
from fgclep.training.pair_data import PairBatches, PairSet, pair_set
from fgclep.training.pair_run import train_coarse_pairs, train_fine
from fgclep.training.pair_validation import _recall, goodness
from fgclep.training.steps import Phase, optimizer_step, read_state, save_state
from tests.fgclep.pair_fakes import options, write_smooth_bundle, write_text_tower

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("tower=small", "frozen_text_blocks=0", "epochs=2", "batch_size=32", "learning_rate=1e-3", "threads=1")
QUICK += ("precision=fp32", "checkpoint_steps=2")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and sixty synthetic ECGs with reports in MIMIC-IV-ECG's layout."""
    from fgclep.datasets.synthetic import write_tree

    out = tmp_path_factory.mktemp("pairs") / "tree"
    write_tree(out, n=160, seed=4)
    return out


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text_tower(tmp_path_factory.mktemp("tower") / "bert")


@pytest.fixture(scope="module")
def smooth_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_smooth_bundle(tmp_path_factory.mktemp("smooth") / "bundle")


@pytest.fixture(scope="module")
def export(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in which every other record has a feature."""
    from fgclep.datasets import open_dataset
    from fgclep.enrichment.export import enriched_rows, write_rows

    path = tmp_path_factory.mktemp("export") / "enriched.jsonl"
    infos = list(open_dataset(tree).iter_infos())
    write_rows(path, enriched_rows(infos, {info.record_id: [("tall r waves", 0.9)] for info in infos[::2]}))
    return path


@pytest.fixture(scope="module")
def config(tower: str) -> PairConfig:
    from fgclep.training.settings import parse_overrides

    found = read_config(None, parse_overrides(["preset=fg-clep-v1", *QUICK, f"text_tower={tower}"]))
    assert isinstance(found, PairConfig)
    return found


@pytest.fixture(scope="module")
def unbroken(tree: Path, config: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train_coarse_pairs(tree, out, config, 1, lambda line: None)
    return out


def rows_of(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_preset_is_the_paper() -> None:
    paper = read_config(None, {"preset": "fg-clep-v1"})
    assert isinstance(paper, PairConfig)
    assert (paper.tower, paper.text_tower) == ("resnet1d-50", "emilyalsentzer/Bio_ClinicalBERT")
    assert (paper.learning_rate, paper.weight_decay, paper.batch_size, paper.epochs) == (2e-5, 1e-4, 100, 10)
    assert (paper.warmup_share, paper.similarity_weight, paper.similarity_reduction) == (0.1, 0.5, "sum")
    assert (round(paper.log_scale_init, 6), paper.bias_init) == (round(float(np.log(10)), 6), -10.0)
    assert (paper.pair_labels, paper.synthetic_records) == ("diagonal", 0)
    assert read_fine_config(None, {}).epochs == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"preset": "fg-clep"}, "unknown preset 'fg-clep'"),
        ({"preset": "fg-clep-v1", "batchsize": 3}, "unknown key 'batchsize'"),
        ({"preset": "fg-clep-v1", "pair_labels": "equal"}, "expected one of diagonal, equal-text, soft"),
        ({"preset": "fg-clep-v1", "warmup_share": 1.5}, "at most 1"),
        ({"preset": "fg-clep-v1", "learning_rate": float("nan")}, "finite"),
        ({"preset": "fg-clep-v1", "stop_gradient": 1}, "expected bool"),
        ({"preset": "fg-clep-v1", "epochs": True}, "expected int"),
        ({"preset": "fg-clep-v1", "validation_tasks": ["forms"]}, "unknown validation_tasks 'forms'"),
    ],
)
def test_impossible_settings_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(None, setting)


def small_pairs(tree: Path) -> PairSet:
    """All records of the tree as pairs, prepared for the smooth bundle's input."""
    from fgclep.datasets import open_dataset
    from fgclep.preprocessing import EcgProcessor
    from fgclep.training.waveforms import Waveforms, to_units

    dataset = open_dataset(tree)
    processor = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median")
    infos = list(dataset.iter_infos())[:40]
    infos[1] = replace(infos[1], report_lines=infos[0].report_lines)  # two records that say the same
    infos[2] = replace(infos[2], report_lines=())
    records = [dataset.read(info) for info in infos]
    units = np.stack([to_units(processor.prepare(record.waveform, record.fs_hz)) for record in records])
    rows = np.arange(len(infos))
    return pair_set([Waveforms.of_array(units)], infos, rows, {infos[3].record_id: ["Tall R waves"]}, lambda line: None)


@pytest.mark.parametrize("pair_label", ["diagonal", "equal-text", "soft"])
@pytest.mark.parametrize(("reduction", "stop"), [("sum", True), ("mean", False)])
def test_the_first_loss_is_the_plain_loss_of_the_batch(
    tree: Path, smooth_bundle: Path, tmp_path: Path, pair_label: str, reduction: str, stop: bool
) -> None:
    """The oracle is the plain loss over one matrix; the trainer has unique texts, row blocks and accumulation."""
    from accelerate import Accelerator

    pairs, model = small_pairs(tree), load_model(smooth_bundle)
    settings = PairSettings(
        epochs=1, batch_size=16, accumulation=2, pair_labels=pair_label, similarity_reduction=reduction,
        stop_gradient=stop, rows_per_block=5, frozen_text_blocks=0, precision="fp32", similarity_weight=0.3,
    )  # fmt: skip
    batches = PairBatches(pairs, settings)
    expected, gradients = 0.0, []
    for number in range(2):
        members = batches.members(number)
        ecg = model.ecg_encoder(torch.from_numpy(pairs.batch(members)))
        texts = [pairs.texts[pairs.text_of[member]] for member in members]
        text = model.project_text(model.text_features(**model.tokenize(texts)))
        if pair_label == "soft":
            loss = soft_label_loss(pair_logits(ecg, text, model.log_scale, model.bias), soft_labels(text))
        else:
            groups = pairs.text_of[members] if pair_label == "equal-text" else np.arange(len(members))
            labels = pair_labels(torch.from_numpy(groups))
            loss = clep_loss(ecg, text, model.log_scale, model.bias, labels, 0.3, reduction, stop)
        (loss / 2).backward()
        expected += float(loss.detach()) / 2
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    validation: Any = None  # not reached
    tried = load_model(smooth_bundle)
    trainer = pair_trainer.PairTrainer(
        tried, pairs, validation, settings, tmp_path, Accelerator(cpu=True), lambda line: None
    )
    values = trainer._step(0, trainer._prefetched())
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    for name, weight in tried.named_parameters():
        if name in gradients:
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-3, atol=1e-6)


def test_texts_of_like_length_go_together_and_come_back_in_order(smooth_bundle: Path) -> None:
    model = load_model(smooth_bundle)
    texts = [" ".join(["sinus", "rhythm"] * (1 + 7 * number % 23)) for number in range(80)]
    tokens = model.tokenize(texts)
    which = torch.arange(79, -1, -1)
    _, vectors, _, _ = pair_trainer.PairLearner(model)(torch.zeros(80, 12, 1000), **tokens, which=which)
    expected = model.project_text(model.text_features(**tokens))[which]
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=1e-5)


def test_pairs_hold_each_text_once_and_batches_encode_it_once(tree: Path) -> None:
    pairs = small_pairs(tree)
    assert len(pairs) == 39  # one has no report
    assert len(set(pairs.texts)) == len(pairs.texts)
    assert pairs.text_of[0] == pairs.text_of[1]
    assert pairs.texts[pairs.text_of[2]].endswith("tall r waves.")
    batches = PairBatches(pairs, PairSettings(batch_size=39, pair_labels="equal-text"))
    batch, members = batches[0], batches.members(0)
    assert len(set(batch.texts)) == len(batch.texts) < 39
    for place, member in enumerate(members):
        assert batch.texts[int(batch.which[place])] == pairs.texts[pairs.text_of[member]]
    parts = [PairBatches(pairs, PairSettings(batch_size=39), rank, 2)[0] for rank in range(2)]
    torch.testing.assert_close(torch.cat([part.waveforms for part in parts]), batch.waveforms)


def test_a_killed_run_goes_on_with_the_losses_of_an_unbroken_one(
    tree: Path, tower: str, config: PairConfig, unbroken: Path, tmp_path: Path
) -> None:
    whole = rows_of(unbroken)
    steps = [row["step"] for row in whole if "loss" in row]
    assert steps == list(range(1, len(steps) + 1))
    killed_at = len(steps) // 2 + 1
    killed_at += killed_at % 2 == 0  # checkpoints are at even steps: one step is lost
    words = ["train", "coarse", "--data", str(tree), "--out", str(tmp_path / "run"), "--workers", "1"]
    words += options("preset=fg-clep-v1", *QUICK, f"text_tower={tower}")
    script = str(ROOT / "tests" / "fgclep" / "pair_fakes.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    died = subprocess.run([sys.executable, script, str(killed_at), *words], env=environment, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert rows_of(tmp_path / "run")[-1]["step"] == killed_at
    said: list[str] = []
    bundle = train_coarse_pairs(tree, tmp_path / "run", config, 1, said.append)
    assert f"resuming after step {killed_at - 1:,}" in said
    assert rows_of(tmp_path / "run") == whole
    assert (bundle / "model.safetensors").read_bytes() == (unbroken / "bundle" / "model.safetensors").read_bytes()


def test_two_processes_take_the_step_of_one(tree: Path, smooth_bundle: Path, export: Path, tmp_path: Path) -> None:
    """One step over the same batch, cut unevenly: loss, gradients and parameters, through torchrun and the program."""
    settings = options(
        "epochs=1",
        "batch_size=81",
        "warmup_share=0",
        "learning_rate=1e-3",
        "clip_norm=0",
        "precision=fp32",
        "threads=1",
    )
    words = ["train", "fine", "--from", str(smooth_bundle), "--data", str(tree), "--features", str(export)]
    words += ["--workers", "1", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cli.main"]
    two = subprocess.run(
        [sys.executable, *launcher, *words, "--out", str(tmp_path / "two")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert "2 process(es)" in two.stderr
    assert two.stdout.splitlines() == [str(tmp_path / "two" / "bundle")]
    assert run([*words, "--out", str(tmp_path / "one")]) == 0
    first, second = (rows_of(tmp_path / name)[0] for name in ("one", "two"))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    assert one["step"] == other["step"] == 1
    for number, mine in one["optimizer"]["state"].items():  # after one step exp_avg is a tenth of the gradient
        theirs = other["optimizer"]["state"][number]
        torch.testing.assert_close(theirs["exp_avg"], mine["exp_avg"], rtol=1e-3, atol=1e-6)
    moved = 0
    before = load_model(smooth_bundle).state_dict()
    states = one["optimizer"]["state"]
    for number, (name, _) in enumerate(load_model(smooth_bundle).named_parameters()):
        sure = states[number]["exp_avg"].abs() > 1e-5  # Adam makes a whole step of noise around zero
        torch.testing.assert_close(other["model"][name][sure], one["model"][name][sure], rtol=0, atol=1e-5)
        moved += int(((one["model"][name] - before[name]).abs() > 5e-4)[sure].sum())
    assert moved > 100


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    tree: Path, config: PairConfig, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = pair_trainer.PairTrainer._loss
    calls = iter(range(100))

    def poisoned(self: pair_trainer.PairTrainer, batch: Any) -> torch.Tensor:
        loss = taken(self, batch)
        return loss * float("nan") if next(calls) == 2 else loss

    with monkeypatch.context() as patch:
        patch.setattr(pair_trainer.PairTrainer, "_loss", poisoned)
        with pytest.raises(FgclepError, match=r"step 3: the loss is nan.*last\.pt is kept.*records: ") as stopped:
            train_coarse_pairs(tree, tmp_path, config, 1, lambda line: None)
    named = stopped.value.message.partition("records: ")[2].rstrip(".").split(", ")
    assert len(named) == len(set(named)) == 32
    train_coarse_pairs(tree, tmp_path, config, 1, lambda line: None)
    assert rows_of(tmp_path) == rows_of(unbroken)


@pytest.mark.parametrize(("owner", "name"), [(pair_trainer.PairTrainer, "_loss"), (torch.optim.AdamW, "step")])
def test_out_of_memory_names_a_batch_size(
    tree: Path, config: PairConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def full(self: Any, *arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(FgclepError, match="out of memory with batch_size 32") as stopped:
        train_coarse_pairs(tree, tmp_path, config, 1, lambda line: None)
    assert "-o batch_size=16 -o accumulation=2" in stopped.value.hint


def test_training_ends_when_no_epoch_is_better_and_keeps_the_best(
    tree: Path, config: PairConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_trainer.PairTrainer, "_step", lambda self, step, batches: {"loss": 1.0})
    scripted = iter([{"loss": 2.0, "r10": 0.1}, {"loss": 1.0, "r10": 0.3}, {"loss": 1.5, "r10": 0.3}])
    monkeypatch.setattr(pair_trainer, "validate_pairs", lambda *rest: next(scripted))
    said: list[str] = []
    train_coarse_pairs(tree, tmp_path, replace(config, epochs=9, patience=1), 1, said.append)
    epochs = [line for line in said if line.startswith("epoch ")]
    assert len(epochs) == 3
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["step"] * 3 == rows_of(tmp_path)[-1]["step"] * 2
    assert goodness({"loss": 1.0, "r10": 0.3}) > goodness({"loss": 1.5, "r10": 0.3})
    assert goodness({"loss": 9.0, "r10": 0.1, "mean": 0.9}) > goodness({"loss": 1.0, "r10": 0.9, "mean": 0.8})


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_state({"step": 1, "weight": torch.zeros(10)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(FgclepError, match=r"last\.pt cannot be written .*the one before it is kept"):
            save_state({"step": 2, "weight": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"h\x05", bytes(4)])
def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"last\.pt is not a readable checkpoint"):
        read_state(path)
    save_state({"step": 1, "weight": torch.zeros(10)}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptionError, match=r"last\.pt is not a readable checkpoint"):
        read_state(path)


PHASE = Phase("the ECG phase", Path("ecg_side.pt"), ["ptb-xl:1", "ptb-xl:2"], "batch_size 8", "-o batch_size=4")


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_on_no_number_changes_no_weight(poison: float) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    rows = np.array([1])
    assert optimizer_step(lambda: (weight.sum(), rows), optimizer, [weight], schedule, PHASE) == 3
    before = weight.detach().clone()
    with pytest.raises(FgclepError, match=r"step 2 of the ECG phase: the loss is (nan|inf).* records: ptb-xl:2\."):
        optimizer_step(lambda: ((poison * weight).sum(), rows), optimizer, [weight], schedule, PHASE)
    torch.testing.assert_close(weight.detach(), before)


def test_a_step_that_takes_too_much_memory_names_the_setting_to_lower() -> None:
    def compute() -> tuple[torch.Tensor, NDArray[np.intp]]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(FgclepError, match="out of memory with batch_size 8; no checkpoint exists yet") as stopped:
        optimizer_step(compute, optimizer, [weight], schedule, PHASE)
    assert stopped.value.hint == "-o batch_size=4 and a new --out"


def test_recall_is_a_count_of_nearer_texts_and_texts_that_look_alike_find_nothing() -> None:
    rng = np.random.default_rng(3)
    ecg, text = (rng.normal(size=(40, 4)).astype(np.float32) for _ in range(2))
    own = rng.integers(0, 40, 40)
    slow = [sum(other @ one >= text[place] @ one for other in text) <= 10 for one, place in zip(ecg, own, strict=True)]
    assert 0.1 < np.mean(slow) < 0.9
    assert _recall(ecg, text, own) == pytest.approx(np.mean(slow), abs=0.03)  # rounding may turn one
    assert _recall(ecg, np.ones_like(text), own) == 0


def test_a_checkpoint_of_another_architecture_is_refused(
    tree: Path, smooth_bundle: Path, export: Path, tmp_path: Path
) -> None:
    model = load_model(smooth_bundle)
    state = model.state_dict()
    state["text_head.2.weight"] = torch.zeros(7, 16)
    torch.save({"model": state, "step": 1}, tmp_path / "last.pt")
    settings = FineConfig(batch_size=32, epochs=1)
    with pytest.raises(CompatibilityError, match=r"another architecture: text_head\.2\.weight has the shape \(7, 16\)"):
        train_fine(smooth_bundle, tree, export, tmp_path, settings, 1, lambda line: None)


def test_held_out_wordings_do_not_come_in_as_features(
    tree: Path, smooth_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgclep.datasets import open_dataset
    from fgclep.findings.catalog import findings
    from fgclep.training import pair_run

    forbidden = next(wording.text for finding in findings().values() for wording in finding.held_out)
    infos = list(open_dataset(tree).iter_infos())
    rows = [{"record_id": info.record_id, "features": [forbidden.upper(), "tall r waves"]} for info in infos]
    export = tmp_path / "enriched.jsonl"
    export.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    seen: list[PairSet] = []

    class Stopped(Exception):
        pass

    def stop(model: Any, pairs: PairSet, *rest: Any) -> None:
        seen.append(pairs)
        raise Stopped

    monkeypatch.setattr(pair_run, "PairTrainer", stop)
    said: list[str] = []
    with pytest.raises(Stopped):
        train_fine(smooth_bundle, tree, export, tmp_path / "run", FineConfig(batch_size=32), 1, said.append)
    assert any(f"{len(rows):,} more dropped" in line for line in said)
    assert all(text.endswith("tall r waves.") for text in seen[0].texts)
    assert not any(clean_report([forbidden], lower=True).rstrip(".") + ". tall r" in text for text in seen[0].texts)
    export.write_text("\n".join(map(json.dumps, rows[1:])), encoding="utf-8")  # the run must not go on with other texts
    with pytest.raises(UsageError, match="another features"):
        train_fine(smooth_bundle, tree, export, tmp_path / "run", FineConfig(batch_size=32), 1, said.append)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json\n", "line 1, is no enriched report"),
        ('{"record_id": "mimic-iv-ecg:1", "features": []}\n', "has none of"),
    ],
)
def test_an_export_that_is_none_is_refused(
    tree: Path, smooth_bundle: Path, tmp_path: Path, content: str, message: str
) -> None:
    export = tmp_path / "export.jsonl"
    export.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        train_fine(smooth_bundle, tree, export, tmp_path / "run", FineConfig(batch_size=32), 1, lambda line: None)


def test_texts_that_are_cut_are_counted_and_the_tower_sets_the_limit(
    tree: Path, config: PairConfig, unbroken: Path, export: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    quick = FineConfig(epochs=1, batch_size=32, threads=1, precision="fp32", max_tokens=12)
    bundle = train_fine(unbroken, tree, export, tmp_path / "fine", quick, 1, said.append)
    counted = next(line for line in said if "texts are longer than 12 tokens" in line)
    model = load_model(bundle)
    told = next(line for line in said if "distinct texts" in line)
    assert counted.startswith(f"{told.split(', ')[1].split()[0]} of ")  # every report is longer
    assert model.tokenize(["atrial fibrillation " * 50])["input_ids"].shape[1] == 12
    with pytest.raises(UsageError, match=r"max_tokens is 100000; the text tower reads at most \d+"):
        train_fine(unbroken, tree, export, tmp_path / "other", replace(quick, max_tokens=100_000), 1, said.append)


def test_the_result_may_be_a_mean_with_the_start(tree: Path, unbroken: Path, export: Path, tmp_path: Path) -> None:
    quick = FineConfig(epochs=1, batch_size=32, threads=1, precision="fp32", learning_rate=1e-2)
    start = load_model(unbroken / "bundle").state_dict()
    trained, mean, same = (
        load_model(
            train_fine(unbroken, tree, export, tmp_path / str(share), replace(quick, start_share=share), 1, print)
        ).state_dict()
        for share in (0.0, 0.25, 1.0)
    )
    weights = [name for name, value in start.items() if value.is_floating_point()]
    assert sum(bool(((trained[name] - start[name]).abs() > 1e-2).any()) for name in weights) > len(weights) / 2
    for name in weights:
        expected = start[name] + 0.75 * (trained[name] - start[name])
        torch.testing.assert_close(mean[name], expected, rtol=2e-3, atol=1e-4)
        torch.testing.assert_close(same[name], start[name], rtol=0, atol=0)


def test_a_batch_larger_than_the_data_is_refused(tree: Path, config: PairConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 300 x accumulation 2 is 600 pairs a step"):
        train_coarse_pairs(tree, tmp_path, replace(config, batch_size=300, accumulation=2), 1, lambda line: None)
