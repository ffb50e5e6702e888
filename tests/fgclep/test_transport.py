"""Semi-unbalanced transport: METHOD's numbers, a slow rewrite, marginals and limits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fgclep.models.transport import transport_plan

TAGS = torch.tensor([[[1.0, 0], [0, 1]]])
PATCHES = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])


@pytest.mark.parametrize(
    ("tau", "plan", "vectors"),
    [
        (1.0, [[0.76302, 0.23502, 0.00015], [0.00001, 0.34037, 0.65782]], [[0.97902, 0.20378], [0.21446, 0.97673]]),
        (0.1, [[0.94604, 0.05391, 0.00005], [0.00003, 0.25020, 0.74978]], [[0.99903, 0.04409], [0.15612, 0.98774]]),
    ],
)
def test_plan_equals_reference(tau: float, plan: list[list[float]], vectors: list[list[float]]) -> None:
    found = transport_plan(TAGS @ PATCHES.T, tau=tau)[0]
    assert torch.allclose(found, torch.tensor(plan), atol=1e-5)
    assert torch.allclose(F.normalize(found @ PATCHES, dim=1), torch.tensor(vectors), atol=1e-5)


def _similarity(batch: int, tags: int, patches: int = 120, seed: int = 0) -> Tensor:
    """Cosines of random unit patches with tags that are a noisy patch each."""
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(batch, patches, 256, generator=generator), dim=-1)
    z = F.normalize(x[:, :tags] + 0.55 / 16 * torch.randn(batch, tags, 256, generator=generator), dim=-1)
    return z @ x.transpose(1, 2)


def _slow_plan(similarity: NDArray[np.float64], eps: float, tau: float, iterations: int) -> NDArray[np.float64]:
    """The Sinkhorn iterations in the plain domain, element by element."""
    m, n = similarity.shape
    kernel = np.exp((similarity - 1) / eps)
    u, v = np.ones(m), np.ones(n)
    for _ in range(iterations):
        for k in range(m):
            u[k] = (1 / m) / sum(kernel[k, p] * v[p] for p in range(n))
        for p in range(n):
            v[p] = ((1 / n) / sum(kernel[k, p] * u[k] for k in range(m))) ** (tau / (tau + eps))
    return m * u[:, None] * kernel * v[None, :]


@pytest.mark.parametrize(("eps", "tau"), [(0.1, 1.0), (0.1, 0.05), (0.5, 3.0)])
def test_plan_equals_slow_rewrite(eps: float, tau: float) -> None:
    similarity = _similarity(2, 3, patches=12)
    found = transport_plan(similarity, eps=eps, tau=tau, iterations=7)
    for record in range(2):
        slow = _slow_plan(similarity[record].double().numpy(), eps, tau, 7)
        np.testing.assert_allclose(found[record].numpy(), slow, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(("tags", "best"), [(1, 0.017), (3, 0.045), (6, 0.08)])
def test_published_settings_stay_near_equal_shares(tags: int, best: float) -> None:
    """What METHOD B3 measured: rows add up to 0.98, columns stay within a factor of about two of 1 / patches."""
    plan = transport_plan(_similarity(1, tags))[0]
    rows, columns = plan.sum(dim=1), plan.sum(dim=0) / tags * plan.shape[1]
    assert ((rows > 0.975) & (rows < 0.99)).all()
    assert columns.min() > 0.8
    assert columns.max() < 2.3
    assert plan.max().item() == pytest.approx(best, rel=0.15)


def test_infinite_tau_gives_every_patch_the_same_mass() -> None:
    similarity = _similarity(2, 4, patches=9)
    plan = transport_plan(similarity, tau=math.inf, iterations=200)
    assert torch.allclose(plan.sum(dim=1), torch.full((2, 9), 4 / 9), atol=1e-5)
    assert torch.allclose(plan.sum(dim=2), torch.ones(2, 4), atol=1e-4)
    one_tag = transport_plan(similarity[:, :1], tau=math.inf)
    assert torch.allclose(one_tag, torch.full((2, 1, 9), 1 / 9), atol=1e-6)
    assert torch.allclose(transport_plan(similarity, tau=1e6, iterations=200), plan, atol=1e-5)


def test_zero_tau_is_a_softmax() -> None:
    similarity = _similarity(2, 4)
    expected = torch.softmax(similarity / 0.1, dim=2)
    assert torch.allclose(transport_plan(similarity, tau=0.0), expected, atol=1e-6)
    assert torch.allclose(transport_plan(similarity, tau=1e-7), expected, atol=1e-5)


def test_padding_changes_nothing_and_gets_nothing() -> None:
    similarity = _similarity(3, 4, patches=20)
    mask = torch.tensor([[True, True, True, True], [True, False, True, False], [False] * 4])
    plan = transport_plan(similarity, mask)
    assert torch.allclose(plan[:1], transport_plan(similarity[:1]), atol=1e-6)
    assert torch.allclose(plan[1, [0, 2]], transport_plan(similarity[1:2, [0, 2]])[0], atol=1e-6)
    assert not plan[~mask].any()


def test_gradients_are_finite_with_padding_and_low_temperature() -> None:
    similarity = _similarity(2, 3, patches=20).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, False, False]])
    (transport_plan(similarity, mask, eps=0.01, tau=0.05) ** 2).sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.isfinite().all()
    assert similarity.grad[0, 0].any()
    assert not similarity.grad[1].any()


def test_half_precision_cosines_are_solved_in_float32() -> None:
    similarity = _similarity(1, 3).to(torch.bfloat16)
    assert torch.equal(transport_plan(similarity), transport_plan(similarity.float()))


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"tau": -0.1}, {"iterations": 0}, {"tau": math.nan}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected eps above 0"):
        transport_plan(TAGS @ PATCHES.T, **wrong)
