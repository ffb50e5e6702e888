"""Any encoder behind one interface, so that models are measured side by side, each with its own input contract.

A model is named by a *spec*:

- `small`, or the directory of a bundle: an fgclep bundle;
- `random:small`: the same architecture and input with fresh weights, the row that every table needs (METHOD G2);
- `merl:CHECKPOINT[,text=DIRECTORY]`, `ecgfounder:CHECKPOINT`, `clef:CHECKPOINT`: published encoders.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import UsageError
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_model, resolve_model
from fgclep.record import Waveform

if TYPE_CHECKING:
    import torch

    from fgclep.models.dual_encoder import FGCLEPModel

RANDOM_SEED = 0
"""Seed of the fresh weights behind `random:`."""

Prepare = Callable[[Waveform, float], NDArray[np.float32]]
"""From a waveform, float32 (12, samples) in mV, and its rate in Hz to one model input."""


class Encoder(Protocol):
    """What evaluation needs of a model. Its vectors do not depend on which records share a batch."""

    @property
    def name(self) -> str:
        """Short name for tables and file names."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything that changes the vectors."""
        ...

    @property
    def joint(self) -> bool:
        """Tell whether texts and ECGs share one space, so that text can search."""
        ...

    @property
    def fs_hz(self) -> float:
        """The rate at which records are best read."""
        ...

    @property
    def feature_dim(self) -> int:
        """Width F of the frozen features."""
        ...

    @property
    def prepare(self) -> Prepare:
        """The model's input contract; picklable and free of the model, so that worker processes can apply it."""
        ...

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map prepared inputs (B, ...) to unit-norm float32 (B, D) in the space of texts; joint models only."""
        ...

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map prepared inputs (B, ...) to the frozen backbone's pooled features, float32 (B, F)."""
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Map texts to unit-norm float32 (len(texts), D); joint models only."""
        ...


def open_encoder(spec: str, device: str = "cpu") -> Encoder:
    """Open the model that a spec names, see the top of this module.

    Args:
        spec: the model.
        device: where it runs, as PyTorch names devices.

    Raises:
        NotSetUpError: if there is no such bundle, checkpoint or text tower.
        CorruptionError: if weights are damaged or of another layout.
        UsageError: if the spec cannot be understood.
    """
    kind, colon, rest = spec.partition(":")
    if not colon:
        return _open_bundle(spec, device)
    if kind == "random":
        return _open_random(rest, device)
    path, options = _parse_options(spec, rest)
    if kind == "merl":
        from fgclep.evaluation.adapters.merl import open_merl

        return open_merl(path, options.pop("text", None), device)
    if options:
        raise UsageError(f"the model {spec!r} has the option {next(iter(options))!r}; {kind} knows none.")
    if kind == "ecgfounder":
        from fgclep.evaluation.adapters.ecgfounder import open_ecgfounder

        return open_ecgfounder(path, device)
    if kind == "clef":
        from fgclep.evaluation.adapters.clef import open_clef

        return open_clef(path, device)
    raise UsageError(
        f"unknown kind of model {kind!r} in {spec!r}; known: random, merl, ecgfounder, clef.",
        "Give a bundle by name or path, or one of these kinds and a colon before the checkpoint's path.",
    )


def _parse_options(spec: str, rest: str) -> tuple[Path, dict[str, str]]:
    """Split `CHECKPOINT[,text=DIRECTORY]`."""
    path, *pairs = rest.split(",")
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key != "text" or not equals or not value:
            raise UsageError(f"{pair!r} in the model {spec!r} is not understood.", "merl:CHECKPOINT,text=DIRECTORY")
        options[key] = str(Path(value).expanduser())
    return Path(path).expanduser(), options


def refuse_text(name: str) -> NoReturn:
    """Refuse to compare texts with the vectors of a model that knows no text.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{name} has no text tower: it can be probed by its features, not searched by text.",
        "fgclep evaluate linear-probe",
    )


class BundleEncoder:
    """An fgclep bundle, trained or with fresh weights.

    Args:
        name: for tables.
        fingerprint: of weights and input together.
        model: in evaluation mode.
        processor: the bundle's input contract.
    """

    joint = True

    def __init__(self, name: str, fingerprint: str, model: "FGCLEPModel", processor: EcgProcessor) -> None:
        from fgclep.models.inference import fast_encoder

        self.name = name
        self.fingerprint = fingerprint
        self.fs_hz = float(processor.fs_hz)
        self.prepare: Prepare = processor.prepare
        self._model = model.eval()
        self._model.ecg_encoder = fast_encoder(model.ecg_encoder)  # the same vectors in a quarter of the time
        self.feature_dim = self.features(np.zeros((1, 12, processor.n_samples), np.float32)).shape[1]

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (B, 12, samples) to unit-norm float32 (B, D)."""
        vectors: NDArray[np.float32] = self._model.encode_ecg(batch)
        return vectors

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (B, 12, samples) to all that the bundle projects into the space of texts, float32 (B, F).

        A bundle with attention pooling, whose pooling is its projection, gives the mean over time of its feature map,
        as the published probes do (METHOD A1).
        """
        import torch

        with torch.inference_mode():
            waveforms = torch.from_numpy(batch).to(self._model.device)
            pooled: NDArray[np.float32] = self._pooled(waveforms).float().cpu().numpy()
        return pooled

    def _pooled(self, waveforms: "torch.Tensor") -> "torch.Tensor":
        import torch

        tower = self._model.ecg_encoder
        if tower.pool == "attention":
            mean: torch.Tensor = tower.tower(waveforms).mean(dim=2)
            return mean
        seen: list[torch.Tensor] = []
        projections = [module for name, module in tower.named_children() if name in ("project", "project_rhythm")]
        hooks = [each.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])) for each in projections]
        try:
            tower(waveforms)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(seen, dim=1)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Map texts to unit-norm float32 (len(texts), D)."""
        vectors: NDArray[np.float32] = self._model.encode_text(list(texts))
        return vectors


def _open_bundle(name_or_path: str, device: str) -> BundleEncoder:
    path = resolve_model(name_or_path)
    return BundleEncoder(
        _name_of(path), bundle_fingerprint(path), load_model(path, device), EcgProcessor.from_pretrained(path)
    )


def _open_random(name_or_path: str, device: str) -> BundleEncoder:
    """Build a bundle's architecture anew; weights depend on the configuration and `RANDOM_SEED` only."""
    import hashlib

    import torch
    from transformers import PreTrainedTokenizerFast

    from fgclep.models.config import FGCLEPConfig
    from fgclep.models.dual_encoder import FGCLEPModel

    path = resolve_model(name_or_path or None)
    own = hashlib.sha256(f"random {RANDOM_SEED} {bundle_fingerprint(path)}".encode()).hexdigest()[:16]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = FGCLEPModel(FGCLEPConfig.from_pretrained(path))
    model.tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    return BundleEncoder(f"random-{_name_of(path)}", own, model.to(device), EcgProcessor.from_pretrained(path))


def _name_of(path: Path) -> str:
    """Name a bundle by its directory; `RUN/bundle`, where training puts it, by the run."""
    return f"{path.parent.name}-bundle" if path.name == "bundle" else path.name
