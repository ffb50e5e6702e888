"""The losses over the batch of all processes, for data-parallel training (`torchrun`).

Every process holds some ECGs with their texts. The texts are gathered, each process computes the rows of its own ECGs
against all of them, and the gradient of a gathered text goes back to the process it came from.

`DistributedDataParallel` averages gradients over the processes, while the loss of the batch is the sum of the
processes' shares. So the gradient of what is returned is that of the share times the number of processes, and its value
is the loss of the whole batch: after averaging, every process has the loss and the gradient that one process would have
had with the whole batch. (BatchNorm needs `SyncBatchNorm` for that to hold of the towers too.)

Without an initialised process group they are the losses of `fgclep.losses_chunked`.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from fgclep.losses_chunked import ROWS_PER_BLOCK, chunked_clep_loss, chunked_soft_label_loss


def global_clep_loss(
    ecg: Tensor,
    text: Tensor,
    groups: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    similarity_weight: float = 0.5,
    reduction: str = "sum",
    stop_gradient: bool = True,
    *,
    rows: int = ROWS_PER_BLOCK,
) -> Tensor:
    """Return `clep_loss` of the batch of all processes, for `DistributedDataParallel`.

    Args:
        ecg: unit-norm, shape (n, dim), this process's; processes may differ in n.
        text: unit-norm, shape (n, dim), row i belongs to ECG i.
        groups: int64, shape (n,); equal numbers mean equal texts, in all processes alike (a number of the text in the
            data set, or of the record for the paper's diagonal labels).
        log_scale: t', shape ().
        bias: b, shape ().
        similarity_weight: lambda of eq. 7.
        reduction: of the semantic-similarity term, `sum` or `mean`.
        stop_gradient: see `semantic_similarity_loss`.
        rows: ECGs per block.

    Raises:
        ValueError: if a process has no ECG, `reduction` is unknown or `rows` is not positive.
    """
    whole = gather_rows(text), gather_rows(groups)
    options = similarity_weight, reduction, stop_gradient
    share = chunked_clep_loss(ecg, text, groups, log_scale, bias, *options, rows=rows, whole_batch=whole)
    return _for_averaged_gradients(share)


def global_soft_label_loss(
    vectors: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor, *, rows: int = ROWS_PER_BLOCK
) -> Tensor:
    """Return `soft_label_loss` of the batch of all processes, for `DistributedDataParallel`.

    Args:
        vectors: unit-norm, shape (n, dim), this process's; processes may differ in n.
        text: unit-norm, shape (n, dim), row i belongs to vector i.
        log_scale: t', shape ().
        bias: b, shape ().
        rows: vectors per block.

    Raises:
        ValueError: if a process has no vector or `rows` is not positive.
    """
    whole = gather_rows(text)
    share = chunked_soft_label_loss(vectors, text, log_scale, bias, rows=rows, whole_batch=whole)
    return _for_averaged_gradients(share)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes in order of rank, with gradient; `rows` itself where there is one process.

    Args:
        rows: shape (n, ...), n at least 1; processes may differ in n and in nothing else.

    Raises:
        ValueError: in every process, if one has no row.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    counts = [int(count) for count in sizes]
    if not all(counts):
        raise ValueError(f"the processes hold {counts} rows of the batch; each needs at least one")
    gathered: Tensor = _GatherRows.apply(rows, counts)
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather of unequal parts; backward adds up what all processes want of each row.

    Own code because torch's differentiable collectives changed their names between the releases that fgclep allows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        first = sum(ctx.counts[: dist.get_rank()])
        return total[first : first + ctx.counts[dist.get_rank()]], None


def _for_averaged_gradients(share: Tensor) -> Tensor:
    """Return a tensor with the value of the sum of all shares and the gradient of this share times the processes."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return share
    total = share.detach().clone()
    dist.all_reduce(total)
    scaled = share * dist.get_world_size()
    return scaled + (total - scaled).detach()
