"""Configuration of the dual encoder and its presets."""

from typing import Any

from transformers import PretrainedConfig

_RESNET18 = {"arch": "resnet1d", "block": "basic", "depths": [2, 2, 2, 2], "widths": [64, 128, 256, 512], "kernel": 3}
_RESNET50 = {**_RESNET18, "block": "bottleneck", "depths": [3, 4, 6, 3]}
_INPUT_500HZ = {"fs_hz": 500, "n_samples": 5000, "lowpass_hz": None, "center": "none"}
_INPUT_100HZ = {"fs_hz": 100, "n_samples": 1000, "lowpass_hz": 40.0, "center": "median"}

ECG_PRESETS: dict[str, dict[str, Any]] = {
    "resnet1d-18": {"ecg": _RESNET18, "pool": "attention", "input": _INPUT_500HZ},
    "resnet1d-50": {"ecg": _RESNET50, "pool": "attention", "input": _INPUT_500HZ},
    "vit1d": {
        "ecg": {"arch": "vit1d", "width": 192, "depth": 12, "windows": 10},
        "pool": "mean",
        "input": _INPUT_500HZ,
    },
    "small": {
        "ecg": {**_RESNET18, "widths": [64, 96, 160, 256], "kernel": 5},
        "pool": "mean-max-measures",
        "input": _INPUT_100HZ,
    },
}
"""ECG towers by name; `small` is the one of the shipped bundle, the others follow the papers."""


class FGCLEPConfig(PretrainedConfig):
    """Everything needed to rebuild a dual encoder.

    Args:
        ecg: arguments of the ECG tower, with `arch` naming it.
        pool: `attention` (MERL), `mean` (FOCAL) or `mean-max-measures` (the `small` preset).
        n_samples: input samples per lead.
        text: configuration of the text tower as a dictionary (any transformers encoder).
        text_pool: `pooler`, `cls` or `mean`.
        dim: joint dimension P.
        max_tokens: texts are cut after so many tokens.
        text_hidden: width of the text head's hidden layer (the paper: 256); None: that of the text tower.
        log_scale_init: start of t' (the paper: log 10).
        bias_init: start of b (the paper: -10).
        memory: arguments of the `fgclep.models.finding_memory.FindingMemory` behind the text head; None: there is none.
        tag: arguments of the tag head (`fgclep.models.tag_head.TagHead`) and, under `stem`, those of the
            `fgclep.models.lead_stem.LeadStem` that makes its patch tokens; without `stem` the tower makes them. None:
            the model has no tag head.
    """

    model_type = "fgclep"

    def __init__(
        self,
        ecg: dict[str, Any] | None = None,
        pool: str = "attention",
        n_samples: int = 5000,
        text: dict[str, Any] | None = None,
        text_pool: str = "pooler",
        dim: int = 256,
        max_tokens: int = 128,
        log_scale_init: float = 2.302585,
        bias_init: float = -10.0,
        memory: dict[str, Any] | None = None,
        tag: dict[str, Any] | None = None,
        text_hidden: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ecg = ecg or dict(_RESNET50)
        self.pool = pool
        self.n_samples = n_samples
        self.text = text or {"model_type": "bert"}
        self.text_pool = text_pool
        self.dim = dim
        self.max_tokens = max_tokens
        self.text_hidden = text_hidden
        self.log_scale_init = log_scale_init
        self.bias_init = bias_init
        self.memory = memory
        self.tag = tag


def tag_preset(ecg: dict[str, Any], alignment: str) -> dict[str, Any]:
    """Return the tag head that goes with an ECG tower, as `FGCLEPConfig.tag`.

    Args:
        ecg: arguments of the tower, as `FGCLEPConfig.ecg`.
        alignment: `attention` or `transport`.
    """
    transport = {"eps": 0.1, "tau": 0.1} if alignment == "transport" else {}
    stem = {} if ecg["arch"] == "vit1d" else {"stem": {"channels": [24, 48, 64, 64], "width": 96, "windows": 10}}
    return {"alignment": alignment, **transport, **stem}
