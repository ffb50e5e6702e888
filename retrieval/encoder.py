"""Turn a query into a vector with the model that built the index, loading as little as possible."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep.record import EcgRecord
from indexer.manifest import IndexManifest
from retrieval.cache import QueryCache

if TYPE_CHECKING:
    from fgclep.models.dual_encoder import FGCLEPModel
    from fgclep.pretrained import Calibration

Vector = NDArray[np.float32]


class QueryEncoder(Protocol):
    """What a searcher needs of a model."""

    def encode_text(self, text: str) -> Vector:
        """Return the unit vector of a text, float32 (D,)."""
        ...

    def encode_record(self, record: EcgRecord) -> Vector:
        """Return the unit vector of an ECG, float32 (D,)."""
        ...

    def score(self, similarities: Vector) -> Vector:
        """Return the calibrated probability, 0 to 1, of each text-ECG similarity; never falls as similarity rises."""
        ...


class TextTower(Protocol):
    """What encodes texts: the whole model, or its text side alone."""

    def encode_text(self, texts: Sequence[str]) -> Vector:
        """Return unit vectors, float32 (len(texts), D)."""
        ...


class BundleEncoder:
    """Encodes with the model bundle that an index names.

    A text seen before comes from the cache and loads no model; a new one goes through the text tower in numpy where
    that understands the bundle. Torch is imported for other towers and for ECGs only. The bundle is compared with the
    index's fingerprint before anything of it is used.

    Args:
        manifest: of the index.
        find_bundle: finds the bundle and refuses one that does not match, see `indexer.open.matching_model`.
        cache: where embeddings of texts are kept.
    """

    def __init__(self, manifest: IndexManifest, find_bundle: Callable[[], Path], cache: QueryCache) -> None:
        self._model_ref = manifest.model
        self._find_bundle = find_bundle
        self._cache = cache

    def encode_text(self, text: str) -> Vector:
        """Return the unit vector of a text, float32 (D,)."""
        fingerprint, dim = self._model_ref.fingerprint, self._model_ref.dim
        vector = self._cache.get(text, fingerprint, dim)
        if vector is None:
            vector = self._text_tower.encode_text([text])[0]
            self._cache.put(text, fingerprint, vector)
        return vector

    def encode_record(self, record: EcgRecord) -> Vector:
        """Return the unit vector of an ECG, float32 (D,)."""
        from fgclep.preprocessing import EcgProcessor

        prepared = EcgProcessor.from_pretrained(self._bundle).prepare(record.waveform, record.fs_hz)
        vector: Vector = self._model.encode_ecg(prepared[None])[0]
        return vector

    def score(self, similarities: Vector) -> Vector:
        """Return the calibrated probability, 0 to 1, of each text-ECG similarity."""
        return np.asarray(self._calibration.score(similarities), np.float32)

    @cached_property
    def _bundle(self) -> Path:
        return self._find_bundle()

    @cached_property
    def _text_tower(self) -> TextTower:
        from fgclep.text_numpy import NumpyTextEncoder

        return NumpyTextEncoder.from_bundle(self._bundle) or self._model

    @cached_property
    def _model(self) -> "FGCLEPModel":
        from fgclep.pretrained import load_model

        return load_model(self._bundle)

    @cached_property
    def _calibration(self) -> "Calibration":
        from fgclep.pretrained import load_calibration

        return load_calibration(self._bundle)
