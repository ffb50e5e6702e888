"""Losses that align ECG and text embeddings, in plain form: every pair of a batch in one float32 matrix.

All of them compute in float32 also under autocast: cosines in bfloat16 differ by up to 0.004, and t multiplies that.
`fgclep.losses_chunked` has the same losses without the matrix, `fgclep.losses_distributed` over several processes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_labels(groups: Tensor) -> Tensor:
    """Return z of eq. 5 with equal texts as positives: +1 where `groups` agree, -1 elsewhere.

    Args:
        groups: int64, shape (batch,); equal numbers mean equal texts. `torch.arange(batch)` gives the paper's diagonal.

    Returns:
        float32, shape (batch, batch).
    """
    return (groups[:, None] == groups[None, :]).float() * 2 - 1


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosines of unit vectors in float32, autocast or not.

    Args:
        left: unit-norm, shape (n, dim).
        right: unit-norm, shape (m, dim).

    Returns:
        float32, shape (n, m).
    """
    with torch.autocast(left.device.type, enabled=False):
        return left.float() @ right.float().T


def pair_logits(ecg: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Return t * cos(e_i, t_j) + b with t = exp(log_scale), in float32.

    The paper's eq. 5 prints -t and the ECG index j; with b = -10 only this form trains (as in SigLIP).

    Args:
        ecg: unit-norm, shape (n, dim).
        text: unit-norm, shape (m, dim).

    Returns:
        float32, shape (n, m).
    """
    return log_scale.float().exp() * cosines(ecg, text) + bias.float()


def sigmoid_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid contrastive loss, eq. 5 of arXiv 2505.11939: sum over all pairs divided by the number of ECGs.

    Args:
        logits: float32, shape (n, m), from `pair_logits`.
        labels: shape (n, m): +1 matches, -1 does not, 0 is unknown and left out.
    """
    return (F.softplus(-labels * logits) * labels.abs()).sum() / len(logits)


def semantic_similarity_loss(ecg: Tensor, text: Tensor, reduction: str = "sum", stop_gradient: bool = True) -> Tensor:
    """False-negative mitigation, eq. 6: |cos(e_i, t_j) - cos(t_i, t_j)|.

    Args:
        ecg: unit-norm, shape (batch, dim).
        text: unit-norm, shape (batch, dim), row i belongs to ECG i.
        reduction: `sum` as published (inner sum over j, mean over i), or `mean` over all pairs.
        stop_gradient: the target cos(t_i, t_j) carries no gradient. The paper leaves it open; with a gradient the text
            tower can satisfy the loss by collapsing all texts to one point.

    Raises:
        ValueError: if `reduction` is neither.
    """
    target = cosines(text, text)
    gap = (cosines(ecg, text) - (target.detach() if stop_gradient else target)).abs()
    return gap.sum() / pair_divisor(reduction, len(text))


def pair_divisor(reduction: str, batch: int) -> int:
    """Return what the sum over all pairs is divided by: `sum` batch (mean over ECGs), `mean` batch * batch.

    Raises:
        ValueError: for any other reduction.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; expected 'sum' or 'mean'")
    return batch if reduction == "sum" else batch * batch


def clep_loss(
    ecg: Tensor,
    text: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    labels: Tensor,
    similarity_weight: float = 0.5,
    reduction: str = "sum",
    stop_gradient: bool = True,
) -> Tensor:
    """Combined loss of CLEP, eq. 7: sigmoid loss plus weighted semantic-similarity term."""
    loss = sigmoid_loss(pair_logits(ecg, text, log_scale, bias), labels)
    if similarity_weight:
        loss = loss + similarity_weight * semantic_similarity_loss(ecg, text, reduction, stop_gradient)
    return loss


def soft_labels(text: Tensor, others: Tensor | None = None) -> Tensor:
    """Return the soft labels of FOCAL, (1 + cos(t_i, t_j)) / 2, without gradient.

    Unrelated texts of a BERT-like tower often have cosines above 0.3, so labels of false pairs start near 0.7.

    Args:
        text: unit-norm, shape (n, dim).
        others: unit-norm, shape (m, dim); None: `text` itself.

    Returns:
        float32, shape (n, m), in [0, 1].
    """
    return (1 + cosines(text, text if others is None else others).detach()) / 2


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy against soft labels, mean over all pairs: S softplus(-x) + (1 - S) softplus(x) (FOCAL).

    Args:
        logits: float32, shape (n, m), from `pair_logits`.
        targets: shape (n, m), in [0, 1], from `soft_labels`.
    """
    return F.binary_cross_entropy_with_logits(logits, targets)


def statement_loss(logits: Tensor, labels: Tensor, balanced: Tensor | None = None) -> Tensor:
    """Sigmoid loss of ECGs against statements whose truth is known per pair, averaged over the known pairs.

    Args:
        logits: float32, shape (n, m).
        labels: shape (n, m): +1 true of the ECG, -1 not true, 0 unknown.
        balanced: bool, shape (m,): statements whose true ECGs count as much as their false ones, all together.
    """
    known = labels.abs()
    if balanced is not None:
        shares = torch.stack([(labels == sign).sum(dim=0) for sign in (1, -1)]).clamp(min=1)
        evened = known.sum(dim=0) / 2 * ((labels == 1) / shares[0] + (labels == -1) / shares[1])
        known = torch.where(balanced, evened, known)
    return (F.softplus(-labels * logits) * known).sum() / torch.clamp(known.sum(), min=1)
