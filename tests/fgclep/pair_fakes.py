"""What the tests of training on pairs share; as a script, `fgclep` that kills itself after a step.

`python pair_fakes.py STEP WORD...` runs `fgclep WORD...` and ends by SIGKILL when the row of that step was logged.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, "rhythm", "sinus", "voltage", "inverted", "wave"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def write_text_tower(path: Path) -> str:
    """Write a small untrained BERT with its pooler and a WordPiece tokenizer, as a user's own would lie on disk."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), **SIZES)).save_pretrained(path)
    return str(path)


def write_smooth_bundle(path: Path) -> Path:
    """Write an untrained bundle without dropout and batch normalisation: a step does not depend on chance or split."""
    import torch
    from transformers import BertTokenizerFast

    from fgclep.models.config import FGCLEPConfig
    from fgclep.models.dual_encoder import FGCLEPModel
    from fgclep.preprocessing import EcgProcessor
    from fgclep.pretrained import Calibration, save_bundle

    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = FGCLEPConfig(
        ecg={"arch": "vit1d", "width": 64, "depth": 1, "windows": 10},
        pool="mean",
        n_samples=1000,
        text={"model_type": "bert", "vocab_size": len(WORDS), **SIZES, **still},
        text_pool="mean",
        dim=16,
        max_tokens=64,
        log_scale_init=1.0,
        bias_init=-1.0,
    )
    torch.manual_seed(1)
    tokenizer = BertTokenizerFast(vocab=str(path / "vocab.txt"))
    processor = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median")
    save_bundle(
        path, FGCLEPModel(config).eval(), tokenizer, processor, Calibration(5.0, -1.0), "For tests.\n", half=False
    )
    return path


def options(*settings: str) -> list[str]:
    """Return settings as words of the command line."""
    return [word for setting in settings for word in ("-o", setting)]


def run_and_die(step: int, words: Sequence[str]) -> int:
    """Run the program; die when the row of a step has been written."""
    from fgclep.training import step_log

    add = step_log.StepLog.add

    def add_and_die(self: step_log.StepLog, number: int, values: dict[str, float]) -> None:
        add(self, number, values)
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    step_log.StepLog.add = add_and_die  # type: ignore[method-assign]
    from cli.main import run

    return run(words)


if __name__ == "__main__":
    sys.exit(run_and_die(int(sys.argv[1]), sys.argv[2:]))
