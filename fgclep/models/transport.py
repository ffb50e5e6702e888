"""Semi-unbalanced optimal transport from the tags of a report to the patches of its ECG (FOCAL; METHOD B3).

Every tag must send out its whole mass; patches may receive more or less than an equal share, at a price. Solved by
Sinkhorn iterations in the log domain, in float32 whatever type the cosines have.
"""

import math

import torch
from torch import Tensor


def transport_plan(
    similarity: Tensor, mask: Tensor | None = None, *, eps: float = 0.1, tau: float = 1.0, iterations: int = 30
) -> Tensor:
    """Return how each tag spreads its attention over the patches.

    As `tau` goes to 0, a row is the softmax of similarity / eps; as it goes to infinity, all patches receive the same
    mass (an ECG with one tag: all weights equal). Rows add up to 1 before the last update of the patch side and, as
    published, to about 0.98 after it.

    Args:
        similarity: cosines of tags and patches, shape (batch, tags, patches); the cost is 1 - similarity.
        mask: bool, shape (batch, tags), False where a row is padding; None: no padding.
        eps: entropy weight, positive. Smaller is sharper.
        tau: weight of equal shares on the patch side, from 0 to infinity. FOCAL's 1.0 stays close to equal shares: with
            few tags per ECG nearly every patch gets the same weight, so it tells little about where a tag is seen.
        iterations: Sinkhorn iterations, tag side first.

    Returns:
        float32, shape (batch, tags, patches), not negative: the plan times the number of tags of the ECG. Rows of
        padding are 0.

    Raises:
        ValueError: if `eps` is not positive, `tau` is negative or there is no iteration.
    """
    if not (eps > 0 and tau >= 0 and iterations >= 1):
        raise ValueError(
            f"found eps {eps}, tau {tau}, {iterations} iterations; expected eps above 0, tau at least 0, 1 iteration"
        )
    patches = similarity.shape[2]
    real = torch.ones(similarity.shape[:2], dtype=torch.bool, device=similarity.device) if mask is None else mask
    log_kernel = (similarity.float() - 1) / eps
    # Padding counts with mass exp(-inf); an ECG without tags gets one with mass, so that no sum is empty.
    counted = real | ~real.any(dim=1, keepdim=True)
    log_a = torch.where(counted, -counted.sum(dim=1, keepdim=True).float().log(), -torch.inf)
    relaxation = 1.0 if math.isinf(tau) else tau / (tau + eps)
    log_v = torch.zeros(len(similarity), patches, device=similarity.device)
    for _ in range(iterations):
        log_u = log_a - torch.logsumexp(log_kernel + log_v[:, None, :], dim=2)
        log_v = relaxation * (-math.log(patches) - torch.logsumexp(log_kernel + log_u[:, :, None], dim=1))
    plan = (log_u[:, :, None] + log_kernel + log_v[:, None, :]).exp() * counted.sum(dim=1)[:, None, None]
    return plan * real[:, :, None]
