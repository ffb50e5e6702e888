"""Fixtures that every test package shares: real data where it is at hand, a private home, a tiny real model."""

import os
from pathlib import Path

import pytest

os.environ["COLUMNS"] = "300"  # so that no table wraps a text that a test looks for
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is to fail at once

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ECGs and texts: `FGCLEP_SHARED`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("FGCLEP_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; FGCLEP_SHARED names another folder")
    return folder


@pytest.fixture
def fgclep_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no settings from outside, and a working directory without a project file."""
    for name in [name for name in os.environ if name.startswith("FGCLEP_")]:
        monkeypatch.delenv(name)
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("FGCLEP_HOME", str(home))
    monkeypatch.chdir(work)
    return home


@pytest.fixture(scope="session")
def synthetic_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty synthetic ECGs in MIMIC-IV-ECG's layout at 500 Hz; read it, do not write into it."""
    from fgclep.datasets.synthetic import write_tree

    out = tmp_path_factory.mktemp("synthetic") / "tree"
    write_tree(out, n=40, seed=11)
    return out


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model bundle, untrained and small: 100 Hz input, 16 dimensions. Its vectors mean nothing."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_bundle`, with other weights and so another fingerprint."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "other", seed=1)


def make_bundle(path: Path, seed: int) -> Path:
    """Write an untrained bundle whose tokenizer knows a few ECG words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from fgclep.models.config import FGCLEPConfig
    from fgclep.models.dual_encoder import FGCLEPModel
    from fgclep.preprocessing import EcgProcessor
    from fgclep.pretrained import Calibration, save_bundle

    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
    words = ["[PAD]", "[UNK]", *letters, "low", "qrs", "voltage", "inverted", "waves", "pattern", "sinus", "rhythm"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = FGCLEPConfig(
        ecg={"arch": "resnet1d", "block": "basic", "depths": [1, 1, 1, 1], "widths": [8, 8, 8, 8], "kernel": 3},
        pool="mean-max-measures",
        n_samples=1000,
        text={"model_type": "bert", "vocab_size": len(words), "max_position_embeddings": 64, **sizes},
        text_pool="mean",
        dim=16,
        max_tokens=64,
    )
    model = FGCLEPModel(config).eval()
    memory = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    model.remember(memory, sharpness=16.0, pull=3.0, threshold=0.2)
    save_bundle(
        path,
        model,
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"),
        EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median"),
        Calibration(slope=10.0, offset=-2.0),
        card="An untrained model for tests.\n",
    )
    return path
