"""Evidence maps: against encoding each occluded copy alone, and against the similarity that they add up to."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fgclep.evidence import WINDOWS, evidence, evidence_maps
from fgclep.models.config import FGCLEPConfig, tag_preset
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.tag_head import ALIGNMENTS
from fgclep.pretrained import load_model

TEXTS = ["low qrs voltage", "inverted waves", "sinus rhythm"]


@pytest.fixture(scope="module")
def resnet(tiny_bundle: Path) -> FGCLEPModel:
    return load_model(tiny_bundle)


@pytest.fixture(scope="module")
def vit(resnet: FGCLEPModel) -> FGCLEPModel:
    """An untrained model whose tower yields 12 x 5 patches, with the same tokenizer."""
    torch.manual_seed(0)
    ecg = {"arch": "vit1d", "width": 64, "depth": 1, "windows": 5}
    own = {"text": resnet.config.text, "text_pool": "mean", "dim": 8, "max_tokens": 64}
    model = FGCLEPModel(FGCLEPConfig(ecg=ecg, pool="mean", n_samples=100, **own)).eval()
    model.tokenizer = resnet.tokenizer
    return model


def _ecg(samples: int) -> Any:
    return np.random.default_rng(3).normal(size=(12, samples)).astype(np.float32)


def test_occlusion_equals_encoding_each_copy_alone(resnet: FGCLEPModel) -> None:
    ecg = _ecg(1000)
    found = evidence(resnet, ecg, TEXTS[0])
    text = resnet.encode_text(TEXTS[:1])[0]
    whole = resnet.encode_ecg(ecg[None])[0] @ text
    assert found.shape == (12, WINDOWS)
    assert found.dtype == np.float32
    for lead, window in [(0, 0), (3, 9), (11, 4)]:
        copy = ecg.copy()
        copy[lead, window * 100 : (window + 1) * 100] = np.median(ecg[lead])
        assert found[lead, window] == pytest.approx(whole - resnet.encode_ecg(copy[None])[0] @ text, abs=1e-5)


@pytest.mark.parametrize("samples", [100, 97])
def test_occlusion_points_at_the_only_place_that_counts(samples: int) -> None:
    """A stand-in for a model whose similarity is one sample of V2: one window changes it, and nothing else does."""

    def encode_ecg(batch: Any) -> Any:
        return batch[:, 7, 36:37].astype(np.float32)

    model: Any = SimpleNamespace(
        config=SimpleNamespace(n_samples=samples),
        ecg_encoder=SimpleNamespace(tower=None, pool="mean"),
        tag_head=None,
        encode_ecg=encode_ecg,
    )
    ecg = np.zeros((12, samples), np.float32)
    ecg[:, ::4] = 0.7
    found = evidence_maps(model, ecg, np.ones((1, 1), np.float32))[0]
    assert found[7, 3] == pytest.approx(0.7)
    found[7, 3] = 0
    assert not found.any()


def test_a_flat_lead_is_no_evidence(resnet: FGCLEPModel) -> None:
    ecg = _ecg(1000)
    ecg[5] = 0.2
    found = evidence(resnet, ecg, TEXTS[0])
    assert np.allclose(found[5], 0, atol=1e-5)
    assert np.abs(found[4]).max() > 1e-4


def test_patches_of_a_mean_add_up_to_the_similarity(vit: FGCLEPModel) -> None:
    ecg, texts = _ecg(100), vit.encode_text(TEXTS)
    found = evidence_maps(vit, ecg, texts)
    assert found.shape == (3, 12, 5)
    assert np.allclose(found.sum(axis=(1, 2)), texts @ vit.encode_ecg(ecg[None])[0], atol=1e-5)


def test_rows_of_the_map_are_the_leads(vit: FGCLEPModel) -> None:
    """Without attention between patches, changing one window of one lead changes no other patch's direction."""
    torch.manual_seed(2)
    vit_without_blocks = FGCLEPModel(vit.config).eval()
    vit_without_blocks.ecg_encoder.tower.blocks = torch.nn.Identity()
    text = vit.encode_text(TEXTS[:1])
    ecg = _ecg(100)
    changed = ecg.copy()
    changed[8, 40:60] += 1
    ratio = evidence_maps(vit_without_blocks, changed, text) / evidence_maps(vit_without_blocks, ecg, text)
    moved = ~np.isclose(ratio[0], np.median(ratio), rtol=1e-3)
    assert np.argwhere(moved).tolist() == [[8, 2]]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_patches_of_a_tag_head_add_up_to_its_score(name: str, alignment: str, request: pytest.FixtureRequest) -> None:
    original = request.getfixturevalue(name)
    model = copy.deepcopy(original)
    torch.manual_seed(1)
    model.add_tag_head(tag_preset(model.config.ecg, alignment))
    ecg, texts = _ecg(model.config.n_samples), model.encode_text(TEXTS)
    found = evidence_maps(model, ecg, texts)
    assert found.shape == (3, 12, 5 if name == "vit" else 10)
    assert np.allclose(found.sum(axis=(1, 2)), model.tag_scores(ecg[None], TEXTS)[0], atol=1e-5)
    assert np.array_equal(original.encode_ecg(ecg[None]), model.encode_ecg(ecg[None]))
    assert not np.allclose(found[0], evidence(original, ecg, TEXTS[0]), atol=1e-5)


def test_lead_stem_gives_every_lead_tokens_of_its_own(tagged_bundle: Path) -> None:
    """Changing one second of one lead changes that lead's tokens there and beside it, and no other lead's."""
    model = load_model(tagged_bundle)
    ecg = _ecg(1000)
    changed = ecg.copy()
    changed[8, 500:600] += 1
    with torch.inference_mode():
        both = model.patch_tokens(torch.from_numpy(np.stack([ecg, changed]))).reshape(2, -1, 12, 10)
    moved = (both[0] - both[1]).abs().amax(dim=0) > 1e-4
    assert moved[8, 5]
    assert {(int(lead), int(window)) for lead, window in moved.nonzero()} <= {(8, 4), (8, 5), (8, 6)}


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_map_does_not_depend_on_the_other_texts(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    ecg = _ecg(model.config.n_samples)
    together = evidence_maps(model, ecg, model.encode_text(TEXTS))
    for row, text in zip(together, TEXTS, strict=True):
        assert np.allclose(row, evidence(model, ecg, text), atol=1e-5)


def test_wrong_shape_is_refused(resnet: FGCLEPModel) -> None:
    with pytest.raises(ValueError, match=r"\(12, 5000\); expected \(12, 1000\)"):
        evidence(resnet, _ecg(5000), "sinus rhythm")


def test_tag_head_without_patch_tokens_is_refused(resnet: FGCLEPModel) -> None:
    with pytest.raises(ValueError, match="patch tokens"):
        resnet.add_tag_head({"alignment": "attention"})


def test_scores_without_a_tag_head_are_refused(resnet: FGCLEPModel) -> None:
    with pytest.raises(ValueError, match="no tag head"):
        resnet.tag_scores(_ecg(1000)[None], TEXTS)
