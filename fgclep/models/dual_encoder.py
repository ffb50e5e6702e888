"""The dual encoder: an ECG tower and a text tower that meet in one unit sphere (METHOD A1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fgclep.models.config import FGCLEPConfig
from fgclep.models.ecg_encoder import EcgEncoder, EcgEnsemble, members_of
from fgclep.models.finding_memory import FindingMemory
from fgclep.models.lead_stem import LeadStem
from fgclep.models.tag_head import TagHead
from fgclep.models.vit1d import ViT1d

EMBEDDING_BATCH = 256


class FGCLEPModel(PreTrainedModel):
    """ECG and text encoders trained to agree; `from_pretrained` and `save_pretrained` as in transformers.

    The tokenizer is read from the bundle when a text is first encoded.
    """

    config_class = FGCLEPConfig
    base_model_prefix = "fgclep"
    main_input_name = "waveforms"
    _tokenizer: PreTrainedTokenizerBase | None = None

    def __init__(self, config: FGCLEPConfig) -> None:
        super().__init__(config)
        self.ecg_encoder: EcgEncoder | EcgEnsemble = (
            EcgEncoder(config) if config.ecg_members == 1 else EcgEnsemble(config)
        )
        text_config = AutoConfig.for_model(**config.text)
        self.text_tower = AutoModel.from_config(text_config, **_pooler_argument(config))
        hidden = text_config.hidden_size
        inner = config.text_hidden or hidden
        self.text_head = nn.Sequential(nn.Linear(hidden, inner), nn.GELU(), nn.Linear(inner, config.dim))
        self.log_scale = nn.Parameter(torch.tensor(float(config.log_scale_init)))
        self.bias = nn.Parameter(torch.tensor(float(config.bias_init)))
        self.memory = None if config.memory is None else FindingMemory(dim=config.dim, **config.memory)
        self.tag_stem: LeadStem | None = None
        self.tag_head: TagHead | None = None
        if config.tag is not None:
            self.add_tag_head(config.tag)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep PyTorch's own initialisation; towers initialise themselves."""

    @property
    def ecg_members(self) -> list[EcgEncoder]:
        """See `fgclep.models.ecg_encoder.members_of`."""
        return members_of(self.ecg_encoder)

    @property
    def dim(self) -> int:
        """Joint dimension P."""
        return int(self.config.dim)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The bundle's tokenizer; a model made from a configuration alone has none until one is set."""
        if self._tokenizer is None:
            self._tokenizer = PreTrainedTokenizerFast.from_pretrained(self.name_or_path)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def add_tag_head(self, tag: dict[str, Any]) -> TagHead:
        """Give the model an untrained tag head in place of what it has, and return it; pooled vectors do not change.

        Args:
            tag: see `FGCLEPConfig.tag`.

        Raises:
            ValueError: if the tower yields no patch tokens and `tag` names no stem.
        """
        arguments = {key: value for key, value in tag.items() if key != "stem"}
        tower = self.ecg_members[0].tower
        self.tag_stem = LeadStem(self.config.n_samples, **tag["stem"]).to(self.device) if "stem" in tag else None
        if self.tag_stem is None and not isinstance(tower, ViT1d):
            raise ValueError("a tag head needs patch tokens: a tower that yields them (vit1d) or a stem")
        width = (self.tag_stem or tower).out_channels
        self.tag_head = TagHead(int(width), self.dim, **arguments).to(self.device)
        self.config.tag = tag
        return self.tag_head

    def remember(self, findings: Tensor, *, sharpness: float, pull: float, threshold: float) -> None:
        """Give the model a memory of findings in place of what it has.

        Args:
            findings: float32 (findings, dim), unit norm.
            sharpness: of `FindingMemory`, as are the others.
            pull: likewise.
            threshold: likewise.
        """
        self.config.memory = {"size": len(findings), "sharpness": sharpness, "pull": pull, "threshold": threshold}
        self.memory = FindingMemory(dim=self.dim, **self.config.memory).to(self.device)
        self.memory.vectors.data.copy_(findings)

    def patch_tokens(self, waveforms: Tensor) -> Tensor:
        """Map float (B, 12, samples) to the tag head's tokens (B, width, 12 * windows)."""
        tokens: Tensor = (self.tag_stem or self.ecg_members[0].tower)(waveforms)
        return tokens

    def text_features(self, **tokens: Tensor) -> Tensor:
        """Map token ids to pooled text-tower features (B, hidden), before the projection head."""
        output = self.text_tower(**tokens)
        if self.config.text_pool == "pooler":
            pooled: Tensor = output.pooler_output
            return pooled
        hidden: Tensor = output.last_hidden_state
        if self.config.text_pool == "cls":
            return hidden[:, 0]
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)  # an empty text has no token

    def project_text(self, features: Tensor) -> Tensor:
        """Map pooled features (B, hidden) to unit-norm float32 (B, dim)."""
        texts = F.normalize(self.text_head(features).float(), dim=-1)
        return texts if self.memory is None else self.memory(texts)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenise texts to tensors on the model's device, padded to the longest."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        )
        return {key: tokens[key].to(self.device) for key in ("input_ids", "attention_mask")}

    def forward(self, waveforms: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Encode both sides; logits are t * cos + b, shape (n ECGs, m texts)."""
        from fgclep.losses import pair_logits

        ecg = self.ecg_encoder(waveforms)
        text = self.project_text(self.text_features(input_ids=input_ids, attention_mask=attention_mask))
        return {
            "ecg_embeds": ecg,
            "text_embeds": text,
            "logits": pair_logits(ecg, text, self.log_scale, self.bias),
        }

    @torch.inference_mode()
    def encode_ecg(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode prepared waveforms.

        Args:
            prepared: float32, shape (batch, 12, n_samples), as `EcgProcessor.prepare` returns them.

        Returns:
            float32, shape (batch, dim), unit norm.

        Raises:
            ValueError: if leads or samples differ from the model's input.
        """
        if prepared.ndim != 3 or prepared.shape[1:] != (12, self.config.n_samples):
            raise ValueError(f"expected waveforms of shape (batch, 12, {self.config.n_samples}), got {prepared.shape}")
        self.eval()
        parts = [
            self.ecg_encoder(torch.from_numpy(prepared[i : i + EMBEDDING_BATCH]).to(self.device)).cpu().numpy()
            for i in range(0, len(prepared), EMBEDDING_BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to float32 unit-norm vectors of shape (len(texts), dim)."""
        self.eval()
        parts = [
            self.project_text(self.text_features(**self.tokenize(texts[i : i + EMBEDDING_BATCH]))).cpu().numpy()
            for i in range(0, len(texts), EMBEDDING_BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    @torch.inference_mode()
    def tag_scores(self, prepared: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float32]:
        """Score texts with the tag head: for each pair the cosine of the text and the ECG vector made for it.

        These depend on the query, so no index can hold them; they are for evaluation and for re-ranking few ECGs.

        Args:
            prepared: float32, shape (batch, 12, n_samples).
            texts: what is looked for.

        Returns:
            float32, shape (batch, texts).

        Raises:
            ValueError: if the model has no tag head.
        """
        if self.tag_head is None:
            raise ValueError("this model has no tag head; `fgclep train tags` adds one to a bundle")
        self.eval()
        queries = torch.from_numpy(self.encode_text(texts)).to(self.device)
        parts = []
        for start in range(0, len(prepared), EMBEDDING_BATCH):
            waveforms = torch.from_numpy(prepared[start : start + EMBEDDING_BATCH]).to(self.device)
            parts.append(self.tag_head.scores(self.patch_tokens(waveforms), queries).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(texts)), np.float32)

    def evidence(self, prepared: NDArray[np.float32], text: str) -> NDArray[np.float32]:
        """Tell which leads and windows of one ECG speak for a text; see `fgclep.evidence.evidence`."""
        from fgclep.evidence import evidence

        return evidence(self, prepared, text)


def _pooler_argument(config: FGCLEPConfig) -> dict[str, Any]:
    """BERT towers whose pooler is not used are built without it, so that no untrained weights are saved."""
    if config.text.get("model_type") == "bert" and config.text_pool != "pooler":
        return {"add_pooling_layer": False}
    return {}
