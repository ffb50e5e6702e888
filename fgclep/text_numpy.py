"""The text tower in plain numpy: a bundle's own weights and tokenizer, without the seconds that importing torch takes.

It reads `model.safetensors`, `config.json` and `tokenizer.json` of the bundle, so there is no second copy of the
weights that could disagree. Only BERT towers are understood (Devlin et al. 2019, arXiv:1810.04805: absolute positions,
exact GELU, layer normalisation after each residual); `NumpyTextEncoder.from_bundle` says no to all others. A test holds
its vectors to those of `FGCLEPModel.encode_text`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError
from fgclep.pretrained import WEIGHTS_NAME

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = NDArray[np.float32]

_TABLES = ("word", "position", "token_type")
_POOLS = ("mean", "cls", "pooler")
_STORED = {"F16", "F32"}
_AGAIN = "copy or train the bundle again."

# What a text configuration must say, and what it means where it says nothing (transformers' BertConfig).
_UNDERSTOOD = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


class NumpyTextEncoder:
    """Encodes texts as the bundle's `FGCLEPModel.encode_text` does, to within float32 rounding.

    Args:
        config: the bundle's `config.json`, with `text` complete (`from_bundle` sees to it).
        weights: the text tensors of `model.safetensors` by name, float32; embedding tables as stored.
        tokenizer: set to cut at the bundle's `max_tokens` and not to pad.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.floating]], tokenizer: "Tokenizer"
    ) -> None:
        self._config = config
        self._text: Mapping[str, Any] = config["text"]
        self._weights = weights
        self._tokenizer = tokenizer

    @classmethod
    def from_bundle(cls, path: str | Path) -> Self | None:
        """Read the text side of a bundle.

        Args:
            path: the bundle's directory.

        Returns:
            the encoder, or None if the bundle is sound as far as was read but its text tower, its pooling or the type
            of its weights is not one that this module understands.

        Raises:
            CorruptionError: if a file is missing or unreadable, or the weights are not those of the configuration.
        """
        path = Path(path)
        config = read_object(path / "config.json")
        if not _is_understood(config) or _cuts_left(path / "tokenizer_config.json"):
            return None
        config = {**config, "text": {**_DEFAULTS, **config["text"]}}
        weights = read_weights(path / WEIGHTS_NAME, _shapes(config))
        if weights is None:
            return None
        return cls(config, weights, _read_tokenizer(path / "tokenizer.json", config["max_tokens"]))

    def encode_text(self, texts: Sequence[str]) -> Array:
        """Encode texts to float32 unit-norm vectors of shape (len(texts), dim)."""
        # One text at a time needs neither padding nor an attention mask.
        features = [self._features(self._tokenizer.encode(text).ids) for text in texts]
        pooled = np.reshape(features, (len(texts), self._text["hidden_size"])).astype(np.float32)
        joint = self._linear(_gelu(self._linear(pooled, "text_head.0")), "text_head.2")
        unit = _to_unit_norm(joint)
        return unit if self._config.get("memory") is None else self._remember(unit, **self._config["memory"])

    def _remember(self, texts: Array, size: int, sharpness: float, pull: float, threshold: float) -> Array:
        """Draw unit vectors (texts, dim) to the findings they are near to, as `FindingMemory` does."""
        findings = self._weights["memory.vectors"]
        nearness = np.exp(np.float32(sharpness) * (texts @ findings.T - np.float32(threshold)))
        shares = nearness / (1 + nearness.sum(axis=1, keepdims=True))
        return _to_unit_norm(texts + np.float32(pull) * shares @ findings)

    def _features(self, ids: list[int]) -> Array:
        """Run the tower over one text's token ids; returns its pooled features, float32 (hidden,)."""
        if not ids:  # a tokenizer without special tokens makes nothing of an empty text
            return np.zeros(self._text["hidden_size"], np.float32)
        words, positions, types = (self._weights[f"text_tower.embeddings.{name}_embeddings.weight"] for name in _TABLES)
        hidden = words[ids].astype(np.float32) + positions[: len(ids)].astype(np.float32) + types[0].astype(np.float32)
        hidden = self._normalise(hidden, "text_tower.embeddings.LayerNorm")
        for layer in range(self._text["num_hidden_layers"]):
            hidden = self._block(hidden, f"text_tower.encoder.layer.{layer}")
        if self._config["text_pool"] == "mean":
            mean: Array = hidden.mean(axis=0)
            return mean
        if self._config["text_pool"] == "cls":
            first: Array = hidden[0]
            return first
        pooled: Array = np.tanh(self._linear(hidden[0], "text_tower.pooler.dense"))
        return pooled

    def _block(self, hidden: Array, name: str) -> Array:
        """Apply one encoder layer to (tokens, hidden)."""
        attended = self._linear(self._attend(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense")
        hidden = self._normalise(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._normalise(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attend(self, hidden: Array, name: str) -> Array:
        """Let every token look at every token: softmax(Q K' / sqrt(d)) V per head (Vaswani et al. 2017, eq. 1)."""
        tokens, heads = len(hidden), self._text["num_attention_heads"]
        query, key, value = (
            self._linear(hidden, f"{name}.{part}").reshape(tokens, heads, -1).swapaxes(0, 1)  # (heads, tokens, d)
            for part in ("query", "key", "value")
        )
        weights = query @ key.swapaxes(1, 2) / np.sqrt(np.float32(query.shape[2]))
        weights = np.exp(weights - weights.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        joined: Array = (weights @ value).swapaxes(0, 1).reshape(tokens, -1)
        return joined

    def _linear(self, values: Array, name: str) -> Array:
        product: Array = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _normalise(self, values: Array, name: str) -> Array:
        """Apply layer normalisation over the last axis."""
        centred = values - values.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._text["layer_norm_eps"]))
        scaled: Array = centred / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return scaled


def _to_unit_norm(vectors: Array) -> Array:
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def erf(values: Array) -> Array:
    """Return the error function, within 1.5e-7 before rounding (Abramowitz and Stegun 1964, 7.1.26).

    scipy has it too, but importing `scipy.special` takes longer than everything else here.
    """
    magnitude = np.abs(values)
    t = 1 / (1 + np.float32(0.3275911) * magnitude)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    signed: Array = np.copysign(1 - series * np.exp(-(magnitude**2)), values)
    return signed


def _gelu(values: Array) -> Array:
    """Return x * P(X <= x) of a standard normal X: the exact GELU of Hendrycks and Gimpel 2016."""
    return np.float32(0.5) * values * (1 + erf(values * np.float32(0.5**0.5)))


def _is_understood(config: Mapping[str, Any]) -> bool:
    text = config.get("text")
    return (
        config.get("model_type") == "fgclep"
        and config.get("text_pool") in _POOLS
        and isinstance(text, dict)
        and {"dim", "max_tokens"} <= config.keys()
        and "model_type" in text
        and all(text.get(key, wanted) == wanted for key, wanted in _UNDERSTOOD.items())
    )


def _cuts_left(file: Path) -> bool:
    """Tell whether a long text loses its beginning; a bundle may lack this file, and then it does not."""
    return file.is_file() and read_object(file).get("truncation_side") == "left"


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every text tensor that the configuration asks for, by name."""
    text = config["text"]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    narrow = config.get("text_hidden") or hidden
    linear = {"text_head.0": (narrow, hidden), "text_head.2": (config["dim"], narrow)}
    norms = ["text_tower.embeddings.LayerNorm"]
    for layer in range(text["num_hidden_layers"]):
        name = f"text_tower.encoder.layer.{layer}"
        linear |= {f"{name}.attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
        linear[f"{name}.attention.output.dense"] = (hidden, hidden)
        linear[f"{name}.intermediate.dense"] = (inner, hidden)
        linear[f"{name}.output.dense"] = (hidden, inner)
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    if config["text_pool"] == "pooler":
        linear["text_tower.pooler.dense"] = (hidden, hidden)
    rows = (text["vocab_size"], text["max_position_embeddings"], text["type_vocab_size"])
    shapes: dict[str, tuple[int, ...]] = {
        f"text_tower.embeddings.{name}_embeddings.weight": (count, hidden)
        for name, count in zip(_TABLES, rows, strict=True)
    }
    if config.get("memory") is not None:
        shapes["memory.vectors"] = (config["memory"]["size"], config["dim"])
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    return shapes | {f"{name}.{part}": (hidden,) for name in norms for part in ("weight", "bias")}


def read_weights(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.floating]] | None:
    """Read tensors by name from a memory-mapped file; None if one is of a type that numpy does not know.

    Matrices are widened to float32 once. Embedding tables stay as they are stored: a text uses few of their rows.
    """
    from safetensors import SafetensorError, safe_open

    weights: dict[str, NDArray[np.floating]] = {}
    try:
        with safe_open(file, framework="numpy") as stored:
            strange = sorted(shapes.keys() - set(stored.keys()))
            for name in shapes.keys() - strange:
                tensor = stored.get_slice(name)
                if tensor.get_dtype() not in _STORED:
                    return None
                if tuple(tensor.get_shape()) != shapes[name]:
                    strange.append(name)
                    continue
                table = name.endswith("_embeddings.weight")
                weights[name] = stored.get_tensor(name) if table else stored.get_tensor(name).astype(np.float32)
    except (SafetensorError, OSError) as error:
        raise CorruptionError(f"{file} is not a readable safetensors file: {error}", _AGAIN) from error
    if strange:
        raise CorruptionError(
            f"{file} does not hold the weights of its config.json; {len(strange)} are missing or of another shape, "
            f"such as {min(strange)}.",
            _AGAIN,
        )
    return weights


def _read_tokenizer(file: Path, max_tokens: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise CorruptionError(f"{file} is not a readable tokenizer: {error}", _AGAIN) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptionError: if the file is missing, unreadable or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{file} is not a readable JSON object: {error}.", _AGAIN) from error
    if not isinstance(content, dict):
        raise CorruptionError(f"{file} is not a readable JSON object: it holds a {type(content).__name__}.", _AGAIN)
    return content
