"""Losses that align ECG and text embeddings, in plain form: every pair of a batch in one float32 matrix."""

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


def pair_logits(ecg: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Return t * cos(e_i, t_j) + b with t = exp(log_scale), in float32.

    The paper's eq. 5 prints -t and the ECG index j; with b = -10 only this form trains (as in SigLIP).

    Args:
        ecg: unit-norm, shape (n, dim).
        text: unit-norm, shape (m, dim).

    Returns:
        float32, shape (n, m).
    """
    return log_scale.float().exp() * (ecg.float() @ text.float().T) + bias.float()


def sigmoid_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid contrastive loss, eq. 5 of arXiv 2505.11939: sum over all pairs divided by the number of ECGs.

    Args:
        logits: float32, shape (n, m), from `pair_logits`.
        labels: shape (n, m): +1 matches, -1 does not, 0 is unknown and left out.
    """
    return (F.softplus(-labels * logits) * labels.abs()).sum() / len(logits)


def semantic_similarity_loss(ecg: Tensor, text: Tensor, reduction: str = "sum") -> Tensor:
    """False-negative mitigation, eq. 6: |cos(e_i, t_j) - cos(t_i, t_j)|.

    The target carries no gradient: otherwise the text tower can satisfy it by collapsing all texts to one point.

    Args:
        ecg: unit-norm, shape (batch, dim).
        text: unit-norm, shape (batch, dim), row i belongs to ECG i.
        reduction: `sum` as published (inner sum over j, mean over i), or `mean` over all pairs.
    """
    gap = (ecg.float() @ text.float().T - (text.float() @ text.float().T).detach()).abs()
    if reduction == "sum":
        return gap.sum() / len(ecg)
    if reduction == "mean":
        return gap.mean()
    raise ValueError(f"reduction is {reduction!r}; expected 'sum' or 'mean'")


def clep_loss(
    ecg: Tensor,
    text: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    labels: Tensor,
    similarity_weight: float = 0.5,
    reduction: str = "sum",
) -> Tensor:
    """Combined loss of CLEP, eq. 7: sigmoid loss plus weighted semantic-similarity term."""
    loss = sigmoid_loss(pair_logits(ecg, text, log_scale, bias), labels)
    if similarity_weight:
        loss = loss + similarity_weight * semantic_similarity_loss(ecg, text, reduction)
    return loss


def statement_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid loss of ECGs against statements whose truth is known per pair, averaged over the known pairs.

    Args:
        logits: float32, shape (n, m).
        labels: shape (n, m): +1 true of the ECG, -1 not true, 0 unknown.
    """
    known = labels.abs()
    return (F.softplus(-labels * logits) * known).sum() / torch.clamp(known.sum(), min=1)
