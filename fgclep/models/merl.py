"""MERL's dual encoder (Liu et al., ICML 2024, METHOD A1, E1) put together from this package's own parts.

Its ResNet, reduction and attention pool are those of `EcgEncoder`; only names differ, and one habit: MERL adds position
0 to the class token twice, which a class token that already contains it once reproduces exactly.
"""

import re

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from fgclep.models.config import FGCLEPConfig
from fgclep.models.dual_encoder import EcgEncoder

SAMPLES = 5000
"""Input samples per lead: the positional table has one entry for each of the 313 steps they become."""

_WIDTHS = [64, 128, 256, 512]
_UNUSED = ("ecg_encoder.linear.", "linear1.", "linear2.", "lm_model.embeddings.position_ids")
_IN_BLOCK = {"conv1": "body.0", "bn1": "body.1", "conv2": "body.3", "bn2": "body.4", "conv3": "body.6", "bn3": "body.7"}
_RENAMED = (
    ("ecg_encoder.conv1.", "ecg_encoder.tower.stem.0."),
    ("ecg_encoder.bn1.", "ecg_encoder.tower.stem.1."),
    ("downconv.", "ecg_encoder.reduce."),
    ("att_pool_head.mhsa.", "ecg_encoder.attention_pool.attention."),
    ("att_pool_head.c_proj.", "ecg_encoder.attention_pool.out."),
    ("lm_model.", "text_tower."),
    ("proj_t.", "text_head."),
)
_BLOCK_NAME = re.compile(r"ecg_encoder\.layer(\d)\.(\d+)\.(\w+)\.(.+)")


class MerlModel(nn.Module):
    """Both towers with their heads.

    Args:
        state: weights as `rename_merl` returns them; widths and depths are read off them.
        text_config: configuration of the text tower.
    """

    def __init__(self, state: dict[str, Tensor], text_config: PretrainedConfig) -> None:
        super().__init__()
        dim, hidden = state["text_head.2.weight"].shape
        depths = [_count_blocks(state, stage) for stage in range(len(_WIDTHS))]
        block = "bottleneck" if "ecg_encoder.tower.stages.0.0.body.6.weight" in state else "basic"
        ecg = {"arch": "resnet1d", "block": block, "depths": depths, "widths": _WIDTHS, "kernel": 3}
        self.ecg_encoder = EcgEncoder(FGCLEPConfig(ecg=ecg, pool="attention", n_samples=SAMPLES, dim=dim))
        self.text_tower = AutoModel.from_config(text_config)
        self.text_head = nn.Sequential(nn.Linear(text_config.hidden_size, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def ecg_features(self, waveforms: Tensor) -> Tensor:
        """Map (B, 12, 5000) to the mean over time of the ResNet's map, (B, 512 or 2048): what MERL's probe reads."""
        features: Tensor = self.ecg_encoder.tower(waveforms).mean(dim=2)
        return features

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids to unit vectors (n, dim)."""
        pooled = self.text_tower(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.text_head(pooled), dim=-1)


def rename_merl(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the entries of a released ResNet checkpoint the names of `MerlModel`.

    What MERL needs for its second loss only (`linear1`, `linear2`), the ResNet's classification layer that it never
    calls, and a constant of older text towers are left out; an unknown entry keeps its name, so that a strict load
    refuses it.

    Raises:
        KeyError: if the attention pool is incomplete.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    positions = state.pop("att_pool_head.positional_embedding")
    renamed = {_renamed(name): tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}
    renamed["ecg_encoder.attention_pool.positions"] = positions
    renamed["ecg_encoder.attention_pool.class_token"] = renamed.pop("att_pool_head.cls_token") + positions[:, :1]
    return renamed


def _renamed(name: str) -> str:
    block = _BLOCK_NAME.fullmatch(name)
    if block:
        stage, position, part, rest = block.groups()
        return f"ecg_encoder.tower.stages.{int(stage) - 1}.{position}.{_IN_BLOCK.get(part, part)}.{rest}"
    for theirs, ours in _RENAMED:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _count_blocks(state: dict[str, Tensor], stage: int) -> int:
    prefix = f"ecg_encoder.tower.stages.{stage}."
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
