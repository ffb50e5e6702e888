"""The tag head: against a slow rewrite, and whether it learns where a tag is seen."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgclep.losses import pair_logits, soft_label_loss, soft_labels, statement_loss
from fgclep.models.tag_head import ALIGNMENTS, TagHead, tag_loss
from fgclep.models.transport import transport_plan
from fgclep.models.vit1d import ViT1d

WIDTH, DIM, PATCHES = 6, 5, 120


def _head(alignment: str, **transport: float) -> TagHead:
    torch.manual_seed(0)
    return TagHead(WIDTH, DIM, alignment, **transport)


def _inputs(batch: int = 3, tags: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, WIDTH, PATCHES), F.normalize(torch.randn(batch, tags, DIM), dim=-1)


def test_attention_equals_slow_rewrite() -> None:
    head, (tokens, tags) = _head("attention").requires_grad_(False), _inputs(batch=1, tags=2)
    aligned = head(tokens, tags)
    for k in range(2):
        z = tags[0, k]
        x = [F.normalize(head.project.weight @ tokens[0, :, p], dim=0) for p in range(PATCHES)]
        logits = [float((head.query.weight @ z) @ (head.key.weight @ x[p])) / math.sqrt(DIM) for p in range(PATCHES)]
        total = sum(math.exp(value) for value in logits)
        mixed = sum(math.exp(logits[p]) / total * (head.value.weight @ x[p]) for p in range(PATCHES))
        assert torch.allclose(aligned.vectors[0, k], mixed / mixed.norm(), atol=1e-5)
        share = math.exp(logits[7]) / total * (head.value.weight @ x[7]) @ z / mixed.norm()
        assert aligned.evidence[0, k, 7].item() == pytest.approx(share.item(), abs=1e-6)


def test_transport_equals_plan_times_patches() -> None:
    head, (tokens, tags) = _head("transport", eps=0.2, tau=0.3, iterations=9), _inputs()
    patches = F.normalize(head.project(tokens.transpose(1, 2)), dim=-1)
    plan = transport_plan(tags @ patches.transpose(1, 2), eps=0.2, tau=0.3, iterations=9)
    assert torch.allclose(head(tokens, tags).vectors, F.normalize(plan @ patches, dim=-1), atol=1e-6)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_evidence_adds_up_to_the_score(alignment: str) -> None:
    head, (tokens, tags) = _head(alignment), _inputs()
    aligned = head(tokens, tags)
    assert torch.allclose(aligned.vectors.norm(dim=-1), torch.ones(3, 4), atol=1e-5)
    assert torch.allclose(aligned.evidence.sum(dim=2), (aligned.vectors * tags).sum(dim=2), atol=1e-5)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_padding_counts_for_nothing(alignment: str) -> None:
    head, (tokens, tags) = _head(alignment), _inputs()
    mask = torch.tensor([[True, True, False, False], [True, True, True, True], [False, False, False, False]])
    aligned = head(tokens, tags, mask)
    alone = head(tokens[:1], tags[:1, :2])
    assert torch.allclose(aligned.vectors[0, :2], alone.vectors[0], atol=1e-5)
    assert not aligned.vectors[~mask].any()
    assert not aligned.evidence[~mask].any()
    aligned.vectors.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_score_depends_on_its_own_query_and_ecg_alone(alignment: str) -> None:
    head, (tokens, tags) = _head(alignment).requires_grad_(False), _inputs()
    queries = tags[0]
    scores = head.scores(tokens, queries)
    assert scores.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            vector = head(tokens[i : i + 1], queries[None, j : j + 1]).vectors[0, 0]
            assert scores[i, j].item() == pytest.approx(float(vector @ queries[j]), abs=1e-5)


def test_tag_loss_is_the_soft_label_loss_of_all_real_tags() -> None:
    head, (tokens, tags) = _head("attention"), _inputs()
    mask = torch.tensor([[True, False, False, True], [True, True, True, True], [False, False, True, False]])
    aligned = head(tokens, tags, mask)
    scale, bias = torch.tensor(math.log(10)), torch.tensor(0.0)
    vectors = torch.stack([aligned.vectors[i, k] for i in range(3) for k in range(4) if mask[i, k]])
    texts = torch.stack([tags[i, k] for i in range(3) for k in range(4) if mask[i, k]])
    expected = soft_label_loss(pair_logits(vectors, texts, scale, bias), soft_labels(texts))
    assert tag_loss(aligned, tags, mask, scale, bias).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("alignment", "settings", "objective", "steps"),
    [("attention", {}, "tags", 150), ("attention", {}, "scores", 60), ("transport", {"tau": 1.0}, "scores", 60)],
)
def test_head_learns_where_a_tag_is_seen(
    alignment: str, settings: dict[str, float], objective: str, steps: int
) -> None:
    """Each ECG has two tags whose marks stand in one patch of 30 each; after training the evidence points there."""
    generator = torch.Generator().manual_seed(2)
    names = F.normalize(torch.randn(6, 16, generator=generator), dim=-1)
    marks = torch.randn(6, 24, generator=generator) * 3

    def draw(batch: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens = torch.randn(batch, 24, 30, generator=generator)
        chosen = torch.stack([torch.randperm(6, generator=generator)[:2] for _ in range(batch)])
        places = torch.stack([torch.randperm(30, generator=generator)[:2] for _ in range(batch)])
        for record in range(batch):
            tokens[record, :, places[record]] += marks[chosen[record]].T
        return tokens, chosen, places

    torch.manual_seed(0)
    head = TagHead(24, 16, alignment, **settings)
    scale, bias = torch.tensor(math.log(10)), torch.tensor(-2.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(steps):
        tokens, chosen, _ = draw(32)
        if objective == "tags":
            tags = names[chosen]
            loss = tag_loss(head(tokens, tags), tags, torch.ones(32, 2, dtype=torch.bool), scale, bias)
        else:
            truth = torch.full((32, 6), -1.0).scatter(1, chosen, 1.0)
            loss = statement_loss(scale.exp() * head.scores(tokens, names) + bias, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, chosen, places = draw(100)
    found = head(tokens, names[chosen]).evidence.argmax(dim=2)
    assert (found == places).float().mean() > 0.8


def test_tokens_of_the_vit_fit() -> None:
    tower = ViT1d(width=64, depth=1, samples=1000).eval()
    head = TagHead(64, 8)
    aligned = head(tower(torch.randn(2, 12, 1000)), F.normalize(torch.randn(2, 3, 8), dim=-1))
    assert aligned.vectors.shape == (2, 3, 8)
    assert aligned.evidence.shape == (2, 3, 12 * tower.windows)


def test_unknown_alignment_is_refused() -> None:
    with pytest.raises(ValueError, match="attention, transport"):
        TagHead(4, 4, "sinkhorn")
