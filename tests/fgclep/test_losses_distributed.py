"""Two processes with a part of the batch each against one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fgclep.losses import clep_loss, pair_labels, pair_logits, soft_label_loss, soft_labels
from fgclep.losses_distributed import gather_rows, global_clep_loss
from tests.fgclep.ddp_losses import TwoTowers

ROWS = 11
CASES: tuple[dict[str, Any], ...] = (
    {"soft": False, "options": (0.0, "sum", True)},
    {"soft": False, "options": (0.5, "sum", True)},
    {"soft": False, "options": (0.5, "mean", False)},
    {"soft": True, "options": ()},
)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    """Eleven pairs, of which some share a text, cut after the seventh; equal texts stand on both sides of the cut."""
    torch.manual_seed(0)
    groups = torch.tensor([4, 9, 4, 1, 7, 2, 9, 4, 9, 5, 1])
    text = torch.randn(10, 5)[groups]
    ecg = torch.randn(ROWS, 6)
    return {"ecg": ecg, "text": text, "groups": groups, "bounds": [0, 7, ROWS], "cases": list(CASES)}


@pytest.fixture(scope="module")
def ranks(batch: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("ddp")
    torch.save(batch, folder / "batch.pt")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    script = str(root / "tests" / "fgclep" / "ddp_losses.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in processes:
        try:
            _, talk = process.communicate(timeout=150)
        finally:
            process.kill()
        assert process.returncode == 0, talk
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def _single_process(batch: dict[str, Any], case: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    model = TwoTowers()
    ecg, text, log_scale, bias = model(batch["ecg"], batch["text"])
    if case["soft"]:
        loss = soft_label_loss(pair_logits(ecg, text, log_scale, bias), soft_labels(text))
    else:
        loss = clep_loss(ecg, text, log_scale, bias, pair_labels(batch["groups"]), *case["options"])
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_two_processes_equal_one(batch: dict[str, Any], ranks: list[dict[str, Any]], number: int) -> None:
    loss, gradients = _single_process(batch, CASES[number])
    for rank in ranks:
        found = rank["results"][number]
        torch.testing.assert_close(found["loss"], loss)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found["gradients"][name], gradient)


def test_a_process_without_rows_is_refused_by_all(ranks: list[dict[str, Any]]) -> None:
    message = "the processes hold [11, 0] rows of the batch; each needs at least one"
    assert [rank["refused"] for rank in ranks] == [message] * 2


def test_without_process_group_the_batch_is_its_own() -> None:
    rows = torch.randn(4, 3)
    assert gather_rows(rows) is rows
    ecg, text = torch.nn.functional.normalize(torch.randn(2, 4, 3), dim=2)
    groups, scale, bias = torch.tensor([0, 1, 0, 2]), torch.tensor(2.0), torch.tensor(-3.0)
    expected = clep_loss(ecg, text, scale, bias, pair_labels(groups))
    torch.testing.assert_close(global_clep_loss(ecg, text, groups, scale, bias), expected)
