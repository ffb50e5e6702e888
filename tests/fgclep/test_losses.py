"""The losses against METHOD's numeric vectors and against slow loops."""

import math

import numpy as np
import pytest
import torch

from fgclep.losses import (
    clep_loss,
    pair_labels,
    pair_logits,
    semantic_similarity_loss,
    sigmoid_loss,
    soft_label_loss,
    soft_labels,
    statement_loss,
)

ECG = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
TEXT = torch.tensor([[0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.8]])
DIAGONAL = pair_labels(torch.arange(3))


def _parameters(t: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(math.log(t)), torch.tensor(b)


@pytest.mark.parametrize(("t", "b", "expected"), [(10.0, -10.0, 2.299827), (20.0, -5.0, 6.278971)])
def test_sigmoid_loss_equals_reference(t: float, b: float, expected: float) -> None:
    loss = sigmoid_loss(pair_logits(ECG, TEXT, *_parameters(t, b)), DIAGONAL)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_semantic_similarity_loss_equals_reference() -> None:
    assert semantic_similarity_loss(ECG, TEXT).item() == pytest.approx(1.0, abs=1e-6)
    assert semantic_similarity_loss(ECG, TEXT, "mean").item() == pytest.approx(1 / 3, abs=1e-6)


def test_combined_loss_equals_reference() -> None:
    loss = clep_loss(ECG, TEXT, *_parameters(10, -10), DIAGONAL, similarity_weight=0.5)
    assert loss.item() == pytest.approx(2.799827, abs=1e-5)


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        semantic_similarity_loss(ECG, TEXT, "max")


@pytest.mark.parametrize("seed", range(4))
def test_sigmoid_loss_equals_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 7)) * 6
    labels = rng.integers(-1, 2, (5, 7))
    slow = sum(
        math.log1p(math.exp(-labels[i, j] * logits[i, j])) for i in range(5) for j in range(7) if labels[i, j] != 0
    )
    known = int((labels != 0).sum())
    x, z = torch.from_numpy(logits), torch.from_numpy(labels).double()
    assert sigmoid_loss(x, z).item() == pytest.approx(slow / 5)
    assert statement_loss(x, z).item() == pytest.approx(slow / known)


def test_equal_texts_are_positives() -> None:
    labels = pair_labels(torch.tensor([4, 9, 4]))
    assert labels.tolist() == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]


def test_similarity_target_carries_no_gradient() -> None:
    """With the ECG side fixed at the targets' own values the text side is not pulled towards collapse."""
    text = TEXT.clone().requires_grad_()
    semantic_similarity_loss(ECG, text).backward()
    through_ecg = torch.zeros_like(TEXT)
    gap_sign = torch.sign(ECG @ TEXT.T - TEXT @ TEXT.T)
    for j in range(3):
        through_ecg[j] = (gap_sign[:, j : j + 1] * ECG).sum(dim=0) / 3
    assert torch.allclose(text.grad, through_ecg, atol=1e-6)


def test_balanced_statements_count_true_and_false_ecgs_alike() -> None:
    """Against a slow rewrite: half of a balanced column's weight is its true ECGs', half its false ones'."""
    torch.manual_seed(3)
    x = torch.randn(40, 3)
    z = torch.ones(40, 3)
    z[:3, 0], z[5:9, 0], z[:20, 1], z[:, 2] = -1, 0, -1, 1
    balanced = torch.tensor([True, False, True])
    total = 0.0
    for column in range(3):
        known = [(-z[row, column] * x[row, column]).exp().log1p() for row in range(40) if z[row, column]]
        if column == 0:
            true = [x.item() for x, sign in zip(known, z[z[:, 0] != 0, 0], strict=True) if sign > 0]
            false = [x.item() for x, sign in zip(known, z[z[:, 0] != 0, 0], strict=True) if sign < 0]
            total += len(known) / 2 * (sum(true) / len(true) + sum(false) / len(false))
        else:
            total += sum(x.item() for x in known) * (0.5 if column == 2 else 1)  # all true: the other half is empty
    expected = total / (36 + 40 + 20)  # a mean over pairs by their weights
    assert statement_loss(x, z, balanced).item() == pytest.approx(expected, rel=1e-5)
    assert statement_loss(x, z, torch.zeros(3, dtype=torch.bool)).item() == statement_loss(x, z).item()


def test_statement_loss_without_known_pairs_is_zero() -> None:
    assert statement_loss(torch.ones(2, 2), torch.zeros(2, 2)).item() == 0.0


def test_stop_gradient_decides_whether_the_target_moves() -> None:
    """Slopes by finite differences: of the loss with the target moving along, and with the target held fixed."""
    torch.manual_seed(1)
    ecg, text = torch.nn.functional.normalize(torch.randn(2, 4, 5), dim=2)
    shift = torch.zeros_like(text)
    shift[2, 3] = 1e-3

    def moving(text: torch.Tensor) -> torch.Tensor:
        return semantic_similarity_loss(ecg, text, stop_gradient=False)

    def fixed(moved: torch.Tensor) -> torch.Tensor:
        return (ecg @ moved.T - text @ text.T).abs().sum() / 4

    slopes = {}
    for stop_gradient, loss in ((False, moving), (True, fixed)):
        leaf = text.clone().requires_grad_()
        semantic_similarity_loss(ecg, leaf, stop_gradient=stop_gradient).backward()
        slopes[stop_gradient] = leaf.grad[2, 3].item()
        assert slopes[stop_gradient] == pytest.approx(
            ((loss(text + shift) - loss(text - shift)) / 2e-3).item(), abs=2e-3
        )
    assert abs(slopes[True] - slopes[False]) > 0.05


def test_soft_label_loss_equals_reference() -> None:
    """METHOD's vector has t = 10 and no bias."""
    targets = soft_labels(TEXT)
    assert torch.allclose(targets, (1 + torch.tensor([[1, 0.6, 0.36], [0.6, 1, 0.6], [0.36, 0.6, 1]])) / 2)
    loss = soft_label_loss(pair_logits(ECG, TEXT, *_parameters(10, 0)), targets)
    assert loss.item() == pytest.approx(0.629095, abs=1e-5)


def test_soft_label_loss_equals_loop() -> None:
    rng = np.random.default_rng(5)
    logits, targets = rng.normal(size=(4, 6)) * 5, rng.random((4, 6))
    slow = sum(
        targets[i, j] * math.log1p(math.exp(-logits[i, j])) + (1 - targets[i, j]) * math.log1p(math.exp(logits[i, j]))
        for i in range(4)
        for j in range(6)
    )
    assert soft_label_loss(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(slow / 24)


def test_soft_labels_carry_no_gradient() -> None:
    assert not soft_labels(TEXT.clone().requires_grad_()).requires_grad


def test_autocast_changes_no_loss() -> None:
    """Cosines in bfloat16 would differ in the third digit, and t multiplies them."""
    torch.manual_seed(0)
    ecg, text = torch.nn.functional.normalize(torch.randn(2, 32, 64), dim=2)
    expected = clep_loss(ecg, text, *_parameters(30, -5), pair_labels(torch.arange(32)))
    with torch.autocast("cpu", torch.bfloat16):
        found = clep_loss(ecg, text, *_parameters(30, -5), pair_labels(torch.arange(32)))
    assert found.dtype == torch.float32
    assert found.item() == expected.item()
