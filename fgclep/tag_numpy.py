"""The tag head in plain numpy: which leads and windows of an ECG show a text, without importing torch.

As `fgclep.text_numpy` for texts: it reads the bundle's own weights, and a test holds its maps to those of
`fgclep.evidence.evidence_maps`. It understands heads over the tokens of a `LeadStem`, as the shipped bundle has;
`NumpyTagHead.from_bundle` says no to all others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fgclep.leads import LEADS
from fgclep.pretrained import WEIGHTS_NAME
from fgclep.text_numpy import Array, read_object, read_weights

CONVOLUTIONS = ((7, 2), (5, 2), (5, 2), (5, 1))
"""Kernel and stride of the stem's convolutions: at `SAMPLES` per 10 s, steps of 80 ms that see 0.63 s, P to T."""
SAMPLES = 1000
"""Samples per lead that the stem works on."""

_BATCH_NORM_EPS = np.float32(1e-5)
_NORM = ("weight", "bias", "running_mean", "running_var")


class NumpyTagHead:
    """Maps of evidence as the bundle's `FGCLEPModel.evidence` gives them, to within float32 rounding.

    Args:
        config: the bundle's `config.json`.
        weights: the tensors of the tag side by name, float32.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.floating]]) -> None:
        tag = config["tag"]
        self._transport: bool = tag["alignment"] == "transport"
        self._plan = {key: tag[key] for key in ("eps", "tau", "iterations") if key in tag}
        self._windows: int = tag["stem"]["windows"]
        self._samples: int = config["n_samples"]
        self._weights = weights
        self._kernels = [self._folded(layer) for layer in range(len(CONVOLUTIONS))]

    @classmethod
    def from_bundle(cls, path: str | Path) -> Self | None:
        """Read the tag side of a bundle.

        Returns:
            the head, or None if the bundle has none, or one that this module does not understand.

        Raises:
            CorruptionError: if a file is missing or unreadable, or the weights are not those of the configuration.
        """
        config = read_object(Path(path) / "config.json")
        tag = config.get("tag")
        if not isinstance(tag, dict) or tag.get("alignment") not in ("attention", "transport") or "stem" not in tag:
            return None
        weights = read_weights(Path(path) / WEIGHTS_NAME, _shapes(config))
        return None if weights is None else cls(config, weights)

    def evidence_maps(self, prepared: Array, text_vectors: Array) -> Array:
        """Return what each patch adds to the cosine of a text and the ECG vector made for it.

        Args:
            prepared: float32, shape (12, n_samples), as `EcgProcessor.prepare` returns it.
            text_vectors: float32, unit norm, shape (texts, dim).

        Returns:
            float32, shape (texts, 12, windows).
        """
        patches = self._tokens(prepared) @ self._weights["tag_head.project.weight"].T  # (12 * windows, dim)
        patches /= np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), np.float32(1e-12))
        if self._transport:
            values, weights = patches, transport_plans(text_vectors @ patches.T, **self._plan)
        else:
            query, key, value = (self._weights[f"tag_head.{part}.weight"].T for part in ("query", "key", "value"))
            values = patches @ value
            logits = (text_vectors @ query) @ (patches @ key).T / np.sqrt(np.float32(text_vectors.shape[1]))
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
        length = np.maximum(np.linalg.norm(weights @ values, axis=1, keepdims=True), np.float32(1e-12))
        shares: Array = weights * (text_vectors @ values.T) / length
        return shares.reshape(len(text_vectors), len(LEADS), self._windows)

    def _tokens(self, prepared: Array) -> Array:
        """Run the stem over one ECG; returns tokens (12 * windows, width), see `fgclep.models.lead_stem`."""
        shrink = max(self._samples // SAMPLES, 1)
        features = prepared[:, None, : prepared.shape[1] // shrink * shrink]
        features = features.reshape(len(prepared), 1, -1, shrink).mean(axis=3)
        for (kernel, shift), (_, stride) in zip(self._kernels, CONVOLUTIONS, strict=True):
            features = np.maximum(_convolve(features, kernel, stride) + shift[:, None], 0)
        steps = features.shape[2]
        edges = [  # as adaptive pooling cuts: windows overlap where they do not divide the steps
            (number * steps // self._windows, -(-(number + 1) * steps // self._windows))
            for number in range(self._windows)
        ]
        means = [features[:, :, start:end].mean(axis=2) for start, end in edges]
        peaks = [features[:, :, start:end].max(axis=2) for start, end in edges]
        pooled = np.concatenate([np.stack(means, axis=1), np.stack(peaks, axis=1)], axis=2)  # (12, windows, 2 C)
        joined = pooled @ self._weights["tag_stem.join.weight"].T + self._weights["tag_stem.join.bias"]
        tokens: Array = np.maximum(joined + self._weights["tag_stem.lead_embedding"], 0)
        return tokens.reshape(len(LEADS) * self._windows, -1)

    def _folded(self, layer: int) -> tuple[Array, Array]:
        """Return one convolution with its batch normalisation folded in: kernel (C out, C in, k) and shift (C out,)."""
        name = f"tag_stem.layers.{layer}"
        scale, shift, mean, variance = (self._weights[f"{name}.1.{part}"] for part in _NORM)
        factor = scale / np.sqrt(variance + _BATCH_NORM_EPS)
        kernel: Array = self._weights[f"{name}.0.weight"] * factor[:, None, None]
        return kernel, shift - mean * factor


def transport_plans(similarity: Array, *, eps: float = 0.1, tau: float = 1.0, iterations: int = 30) -> Array:
    """Spread each tag's attention over the patches, each tag alone: `fgclep.models.transport.transport_plan` of one.

    Args:
        similarity: float32, cosines of tags and patches, shape (tags, patches).
        eps: as there.
        tau: likewise.
        iterations: likewise.

    Returns:
        float32, shape (tags, patches).
    """
    log_kernel = (similarity - np.float32(1)) / np.float32(eps)
    relaxation = np.float32(1 if np.isinf(tau) else tau / (tau + eps))
    equal_share = np.float32(-np.log(similarity.shape[1]))
    log_v = np.zeros_like(log_kernel)
    for _ in range(iterations):
        joined = log_kernel + log_v
        highest = joined.max(axis=1, keepdims=True)
        log_u = -(highest + np.log(np.exp(joined - highest).sum(axis=1, keepdims=True)))
        log_v = relaxation * (equal_share - log_kernel - log_u)
    plans: Array = np.exp(log_u + log_kernel + log_v)
    return plans


def _convolve(features: Array, kernel: Array, stride: int) -> Array:
    """Convolve (n, C in, T) with (C out, C in, k), zeros beyond the ends; returns (n, C out, T / stride)."""
    half = kernel.shape[2] // 2
    padded = np.pad(features, ((0, 0), (0, 0), (half, half)))
    seen = sliding_window_view(padded, kernel.shape[2], axis=2)[:, :, ::stride]  # (n, C in, T / stride, k)
    columns = seen.transpose(0, 2, 1, 3).reshape(seen.shape[0] * seen.shape[2], -1)
    product: Array = columns @ kernel.reshape(len(kernel), -1).T
    return product.reshape(seen.shape[0], seen.shape[2], -1).swapaxes(1, 2)


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the tag side that the configuration asks for, by name."""
    stem, dim = config["tag"]["stem"], config["dim"]
    channels, width = stem["channels"], stem["width"]
    shapes: dict[str, tuple[int, ...]] = {
        "tag_stem.join.weight": (width, 2 * channels[-1]),
        "tag_stem.join.bias": (width,),
        "tag_stem.lead_embedding": (len(LEADS), 1, width),
        "tag_head.project.weight": (dim, width),
    }
    if config["tag"]["alignment"] == "attention":
        shapes |= {f"tag_head.{part}.weight": (dim, dim) for part in ("query", "key", "value")}
    for layer, (before, after, (kernel, _)) in enumerate(zip([1, *channels[:-1]], channels, CONVOLUTIONS, strict=True)):
        shapes[f"tag_stem.layers.{layer}.0.weight"] = (after, before, kernel)
        shapes |= {f"tag_stem.layers.{layer}.1.{part}": (after,) for part in _NORM}
    return shapes
