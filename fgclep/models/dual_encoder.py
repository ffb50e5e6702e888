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
from fgclep.models.finding_memory import FindingMemory
from fgclep.models.lead_stem import LeadStem
from fgclep.models.resnet1d import AttentionPool, ResNet1d
from fgclep.models.tag_head import TagHead
from fgclep.models.vit1d import ViT1d

EMBEDDING_BATCH = 256
STRIP_SECONDS = 10
RHYTHM_FS_HZ = 50
SHORTEST_LAG_S, LONGEST_LAG_S = 0.2, 3.0
RHYTHM_LAGS = round((LONGEST_LAG_S - SHORTEST_LAG_S) * RHYTHM_FS_HZ)
AMPLITUDES = 3 * 12


class EcgEncoder(nn.Module):
    """ECG tower, pooling and projection.

    `mean-max-measures` joins mean and maximum over time (a single ectopic beat survives the maximum) with two things
    that are plain to measure and hard for convolutions to keep: the logarithms of each lead's amplitudes, which
    BatchNorm would blur, and the rhythm of the whole strip, which is longer than what one feature sees.
    """

    def __init__(self, config: FGCLEPConfig) -> None:
        super().__init__()
        arguments = {key: value for key, value in config.ecg.items() if key != "arch"}
        if config.ecg["arch"] == "resnet1d":
            arguments.update(depths=tuple(arguments["depths"]), widths=tuple(arguments["widths"]))
            self.tower: ResNet1d | ViT1d = ResNet1d(**arguments)
        elif config.ecg["arch"] == "vit1d":
            self.tower = ViT1d(samples=config.n_samples, **arguments)
        else:
            raise ValueError(f"unknown ECG tower {config.ecg['arch']!r}; known: resnet1d, vit1d")
        self.pool = config.pool
        channels = self.tower.out_channels
        if config.pool == "attention":
            self.reduce = nn.Conv1d(channels, 256, 1)
            self.attention_pool = AttentionPool(256, self.tower.steps(config.n_samples), heads=4, dim=config.dim)
        elif config.pool == "mean":
            self.project: nn.Module = nn.Linear(channels, config.dim, bias=False)
        elif config.pool == "mean-max-measures":
            if config.n_samples % (STRIP_SECONDS * RHYTHM_FS_HZ):
                raise ValueError(
                    f"pool mean-max-measures takes strips of {STRIP_SECONDS} s at a multiple of {RHYTHM_FS_HZ} Hz, not "
                    f"{config.n_samples} samples"
                )
            self.fs_hz = config.n_samples // STRIP_SECONDS
            self.amplitude = nn.Sequential(nn.BatchNorm1d(AMPLITUDES), nn.Linear(AMPLITUDES, 64), nn.GELU())
            self.project = nn.Sequential(nn.Dropout(0.25), nn.Linear(2 * channels + 64, config.dim))
            self.rhythm = nn.Sequential(nn.BatchNorm1d(RHYTHM_LAGS), nn.Linear(RHYTHM_LAGS, 64), nn.GELU())
            self.project_rhythm = nn.Linear(64, config.dim, bias=False)
            nn.init.zeros_(self.project_rhythm.weight)
        else:
            raise ValueError(f"unknown pool {config.pool!r}; known: attention, mean, mean-max-measures")

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map float32 (B, 12, samples) to unit-norm float32 (B, dim)."""
        features = self.tower(waveforms)
        if self.pool == "attention":
            joint = self.attention_pool(self.reduce(features))
        elif self.pool == "mean":
            joint = self.project(features.mean(dim=2))
        else:
            amplitude = self.amplitude(amplitude_features(waveforms, self.fs_hz))
            joint = self.project(torch.cat([features.mean(dim=2), features.amax(dim=2), amplitude], dim=1))
            joint = joint + self.project_rhythm(self.rhythm(rhythm_features(waveforms, self.fs_hz)))
        return F.normalize(joint.float(), dim=-1)


def amplitude_features(waveforms: Tensor, fs_hz: int) -> Tensor:
    """Return the logarithms of each lead's peak-to-peak, standard deviation and median peak-to-peak of a second.

    The median over seconds, about a beat each, is what one would measure by eye: wander and a single ectopic beat raise
    the peak-to-peak of the whole strip. (Mean of the limb leads against PTB-XL's code for low voltage, fold 9: AUC
    0.94, of the whole strip's peak-to-peak 0.88.)

    Args:
        waveforms: (B, 12, samples), mV; at least one second long.
        fs_hz: sampling rate.

    Returns:
        float32, (B, AMPLITUDES).
    """
    waveforms = waveforms.float()
    samples = waveforms.shape[2]
    windows = waveforms[:, :, : samples // fs_hz * fs_hz].unflatten(2, (-1, fs_hz))
    by_window = windows.amax(dim=3) - windows.amin(dim=3)
    peak_to_peak = waveforms.amax(dim=2) - waveforms.amin(dim=2)
    centred = waveforms - waveforms.mean(dim=2, keepdim=True)
    deviation = (centred.square().sum(dim=2) / (samples - 1)).sqrt()  # several times faster than torch.std
    features = [peak_to_peak, deviation, by_window.median(dim=2).values]
    return torch.cat(features, dim=1).clamp(min=1e-3).log()


def rhythm_features(waveforms: Tensor, fs_hz: int) -> Tensor:
    """Return how alike the strip is to itself some time later: peaks at RR and its multiples, blurred if RR varies.

    The autocorrelation of the spatial velocity (the length of the twelve leads' change). A QRS complex counts the same
    whether it is high or not, because velocities above the 98th percentile are cut.

    Args:
        waveforms: (B, 12, samples), mV; longer than `LONGEST_LAG_S`.
        fs_hz: sampling rate, a multiple of `RHYTHM_FS_HZ`.

    Returns:
        float32, (B, RHYTHM_LAGS): at lags from `SHORTEST_LAG_S` to `LONGEST_LAG_S`; 1 is perfectly alike.
    """
    step = fs_hz // RHYTHM_FS_HZ
    whole = waveforms[:, :, : waveforms.shape[2] // step * step].float()
    coarse = torch.stack([whole[:, :, start::step] for start in range(step)]).sum(dim=0)
    velocity = coarse.diff(dim=2).square().sum(dim=1).sqrt()
    samples = velocity.shape[1]
    velocity = torch.minimum(velocity, velocity.kthvalue(round(0.98 * samples), dim=1, keepdim=True).values)
    velocity = velocity - velocity.mean(dim=1, keepdim=True)
    first = round(SHORTEST_LAG_S * RHYTHM_FS_HZ)
    lags = torch.arange(first + RHYTHM_LAGS, device=velocity.device)
    padded = 1 << (samples + len(lags) - 1).bit_length()  # so long that no product wraps, and quick to transform
    spectrum = torch.fft.rfft(velocity, n=padded)
    means = torch.fft.irfft(spectrum.abs().square(), n=padded)[:, : len(lags)] / (samples - lags)
    features: Tensor = means[:, first:] / means[:, :1].clamp(min=1e-9)
    return features


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
        self.ecg_encoder = EcgEncoder(config)
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
        tower = self.ecg_encoder.tower
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
        tokens: Tensor = (self.tag_stem or self.ecg_encoder.tower)(waveforms)
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
