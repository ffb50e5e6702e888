"""The losses without a pair matrix against the plain ones: values, gradients, and the memory that is the point."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgclep.losses import clep_loss, pair_labels, pair_logits, soft_label_loss, soft_labels
from fgclep.losses_chunked import chunked_clep_loss, chunked_soft_label_loss


def _leaves(rows: int, dim: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(rows)
    ecg, text = F.normalize(torch.randn(2, rows, dim), dim=2)
    leaves = ecg, text, torch.tensor(1.7), torch.tensor(-3.0)
    return tuple(leaf.clone().requires_grad_() for leaf in leaves)  # type: ignore[return-value]


def _value_and_gradients(loss: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


@pytest.mark.parametrize("rows", [1, 5, 13, 64])  # 13 texts: one row at a time, uneven, just one block, too large
@pytest.mark.parametrize(
    ("weight", "reduction", "stop"), [(0.0, "sum", True), *itertools.product([0.5], ["sum", "mean"], [True, False])]
)
def test_chunked_clep_loss_equals_plain(rows: int, weight: float, reduction: str, stop: bool) -> None:
    groups = torch.tensor([0, 1, 2, 0, 3, 4, 5, 0, 6, 1, 7, 8, 9])
    leaves = _leaves(len(groups))

    def plain(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return clep_loss(ecg, text, scale, bias, pair_labels(groups), weight, reduction, stop)

    def chunked(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return chunked_clep_loss(ecg, text, groups, scale, bias, weight, reduction, stop, rows=rows)

    for found, expected in zip(_value_and_gradients(chunked, leaves), _value_and_gradients(plain, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 9, 64])
def test_chunked_soft_label_loss_equals_plain(rows: int) -> None:
    leaves = _leaves(9)

    def plain(vectors: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return soft_label_loss(pair_logits(vectors, text, scale, bias), soft_labels(text))

    def chunked(vectors: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return chunked_soft_label_loss(vectors, text, scale, bias, rows=rows)

    for found, expected in zip(_value_and_gradients(chunked, leaves), _value_and_gradients(plain, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_shares_of_the_parts_add_up_to_the_whole() -> None:
    ecg, text, scale, bias = _leaves(10)
    groups = torch.arange(10) % 6
    parts = [slice(0, 3), slice(3, 10)]
    shares = [
        chunked_clep_loss(ecg[part], text[part], groups[part], scale, bias, rows=2, whole_batch=(text, groups))
        for part in parts
    ]
    torch.testing.assert_close(sum(shares), clep_loss(ecg, text, scale, bias, pair_labels(groups)))


def _saved_bytes(loss: Callable[[], Tensor]) -> int:
    """Bytes of distinct storage that autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("soft", [False, True])
def test_saved_memory_grows_with_the_batch_and_not_with_its_square(soft: bool) -> None:
    """Quadrupling the batch quadruples what the chunked loss keeps, and multiplies the plain one's by almost 16."""
    saved: dict[str, list[int]] = {"plain": [], "chunked": []}
    for count in (256, 1024):
        ecg, text, scale, bias = _leaves(count, dim=16)
        groups = torch.arange(count)
        if soft:
            plain = lambda: soft_label_loss(pair_logits(ecg, text, scale, bias), soft_labels(text))  # noqa: B023, E731
            chunked = lambda: chunked_soft_label_loss(ecg, text, scale, bias, rows=64)  # noqa: B023, E731
        else:
            plain = lambda: clep_loss(ecg, text, scale, bias, pair_labels(groups))  # noqa: B023, E731
            chunked = lambda: chunked_clep_loss(ecg, text, groups, scale, bias, rows=64)  # noqa: B023, E731
        saved["plain"].append(_saved_bytes(plain))
        saved["chunked"].append(_saved_bytes(chunked))
    assert saved["plain"][1] > 12 * saved["plain"][0]
    assert saved["chunked"][1] < 4.5 * saved["chunked"][0]
    embeddings = 2 * 1024 * 16 * 4
    assert saved["chunked"][1] < 2 * embeddings


@pytest.mark.parametrize("rows", [0, -3])
def test_rows_must_be_positive(rows: int) -> None:
    ecg, text, scale, bias = _leaves(3)
    with pytest.raises(ValueError, match=f"rows is {rows}"):
        chunked_clep_loss(ecg, text, torch.arange(3), scale, bias, rows=rows)


def test_unknown_reduction_is_refused() -> None:
    ecg, text, scale, bias = _leaves(3)
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        chunked_clep_loss(ecg, text, torch.arange(3), scale, bias, reduction="max")
