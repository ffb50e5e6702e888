"""The losses of `fgclep.losses` row block by row block, for batches whose pair matrix would not fit.

A loop over blocks alone saves nothing in training: autograd keeps every block for the backward pass. Here each block is
checkpointed, so what is kept are the embeddings, O(batch * dim), and one block of pairs exists at a time, in the
backward pass too. The price is that every block is computed twice.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fgclep.losses import cosines, pair_divisor, pair_logits, soft_labels

ROWS_PER_BLOCK = 1024


def chunked_clep_loss(
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
    whole_batch: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return `clep_loss` with the labels `pair_labels(groups)`, in memory that does not grow with batch * batch.

    Args:
        ecg: unit-norm, shape (n, dim).
        text: unit-norm, shape (n, dim), row i belongs to ECG i.
        groups: int64, shape (n,); equal numbers mean equal texts.
        log_scale: t', shape ().
        bias: b, shape ().
        similarity_weight: lambda of eq. 7.
        reduction: of the semantic-similarity term, `sum` or `mean`.
        stop_gradient: see `semantic_similarity_loss`.
        rows: ECGs per block.
        whole_batch: texts (batch, dim) and groups (batch,) of the batch that these ECGs are a part of. The result is
            then their share of the batch's loss; the shares of all parts add up to it. None: they are the batch.

    Raises:
        ValueError: if `reduction` is unknown or `rows` is not positive.
    """
    all_text, all_groups = whole_batch or (text, groups)
    divisor = pair_divisor(reduction, len(all_text))

    def block(start: int, ecg: Tensor, text: Tensor, all_text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        part = slice(start, start + rows)
        logits = pair_logits(ecg[part], all_text, log_scale, bias)
        same = groups[part, None] == all_groups[None, :]
        loss = F.softplus(torch.where(same, -logits, logits)).sum() / len(all_text)
        if similarity_weight:
            target = cosines(text[part], all_text)
            gap = cosines(ecg[part], all_text) - (target.detach() if stop_gradient else target)
            loss = loss + similarity_weight * gap.abs().sum() / divisor
        return loss

    return _sum_of_blocks(block, rows, ecg, text, all_text, log_scale, bias)


def chunked_soft_label_loss(
    vectors: Tensor,
    text: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    rows: int = ROWS_PER_BLOCK,
    whole_batch: Tensor | None = None,
) -> Tensor:
    """Return `soft_label_loss` against `soft_labels(text)`, in memory that does not grow with n * n.

    Args:
        vectors: unit-norm, shape (n, dim): ECG vectors, row i belongs to text i.
        text: unit-norm, shape (n, dim).
        log_scale: t', shape ().
        bias: b, shape (); FOCAL has none, that is 0.
        rows: vectors per block.
        whole_batch: texts (batch, dim) of the batch that these vectors are a part of, as in `chunked_clep_loss`.

    Raises:
        ValueError: if `rows` is not positive.
    """

    def block(start: int, vectors: Tensor, text: Tensor, all_text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        part = slice(start, start + rows)
        logits = pair_logits(vectors[part], all_text, log_scale, bias)
        targets = soft_labels(text[part], all_text)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(all_text) ** 2

    return _sum_of_blocks(block, rows, vectors, text, text if whole_batch is None else whole_batch, log_scale, bias)


def _sum_of_blocks(block: Callable[..., Tensor], rows: int, vectors: Tensor, *others: Tensor) -> Tensor:
    """Add up `block(start, vectors, *others)` over blocks of rows; only these arguments are kept for backward."""
    if rows < 1:
        raise ValueError(f"rows is {rows}; expected at least 1 row per block")
    total = torch.zeros((), device=vectors.device)
    for start in range(0, len(vectors), rows):
        part: Tensor = checkpoint(block, start, vectors, *others, use_reentrant=False, preserve_rng_state=False)
        total = total + part
    return total
