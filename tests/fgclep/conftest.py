"""Fixtures of the science tests."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tagged_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` with an untrained tag head, aligned by attention."""
    return _with_tag_head(tiny_bundle, tmp_path_factory.mktemp("bundle") / "tagged", "attention")


@pytest.fixture(scope="session")
def transport_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` with an untrained tag head, aligned by transport."""
    return _with_tag_head(tiny_bundle, tmp_path_factory.mktemp("bundle") / "transport", "transport")


def _with_tag_head(bundle: Path, path: Path, alignment: str) -> Path:
    """Write a copy of a bundle with an untrained tag head whose batch normalisation has seen data."""
    import torch
    from safetensors.torch import save_file

    from fgclep.models.config import tag_preset
    from fgclep.pretrained import WEIGHTS_NAME, load_model

    shutil.copytree(bundle, path)
    model = load_model(bundle)
    torch.manual_seed(3)
    model.add_tag_head(tag_preset(model.config.ecg, alignment))
    assert model.tag_stem is not None
    model.tag_stem.train()
    for _ in range(5):
        model.patch_tokens(torch.randn(4, 12, 1000))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path / WEIGHTS_NAME)
    model.config.save_pretrained(path)
    return path
