"""A dual encoder before its training: fresh ECG tower, pretrained text tower."""

from typing import TYPE_CHECKING, Any

from fgclep.errors import UsageError
from fgclep.models.config import FGCLEPConfig
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.preprocessing import EcgProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def fresh_model(
    preset: dict[str, Any],
    processor: EcgProcessor,
    tower: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    text_pool: str,
    max_tokens: int,
    text_hidden: int | None,
    log_scale_init: float,
    bias_init: float,
) -> FGCLEPModel:
    """Build the model, its ECG side drawn from torch's generator.

    Args:
        preset: entry of `fgclep.models.config.ECG_PRESETS`.
        processor: its input.
        tower: text tower whose weights are copied.
        tokenizer: of the text tower; attached to the model.
        text_pool: `pooler`, `cls` or `mean`.
        max_tokens: texts are cut after so many tokens.
        text_hidden: width of the text head's hidden layer; None: that of the text tower.
        log_scale_init: start of t'.
        bias_init: start of b.

    Raises:
        UsageError: if the text tower lacks weights that the model needs, such as a pooler.
    """
    text = tower.config.to_dict()
    text.pop("_name_or_path", None)  # where the tower lay on this machine is no part of the model
    model = FGCLEPModel(
        FGCLEPConfig(
            ecg=preset["ecg"],
            pool=preset["pool"],
            n_samples=processor.n_samples,
            text=text,
            text_pool=text_pool,
            max_tokens=max_tokens,
            text_hidden=text_hidden,
            log_scale_init=log_scale_init,
            bias_init=bias_init,
        )
    )
    needed, given = model.text_tower.state_dict(), tower.state_dict()
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise UsageError(f"the text tower has no {lacking[0]}, which text_pool={text_pool} needs.", "-o text_pool=mean")
    # a tower may bring a pooler that another way of pooling does not use
    model.text_tower.load_state_dict({name: given[name] for name in needed})
    model.tokenizer = tokenizer
    return model
