"""Open a published index version, refusing whatever does not fit together."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError
from indexer.backends import Backend, NumpyMatmul, self_test
from indexer.backends.base import Vectors
from indexer.backends.int8_codes import Codes
from indexer.lease import Lease, take_lease
from indexer.manifest import STORED, IndexManifest, read_manifest, sha256_file
from indexer.store_read import Store, open_store

VECTORS = "embeddings/vectors.npy"
KEYS = "embeddings/keys.npy"
CODES = "embeddings/codes.npy"
SCALES = "embeddings/scales.npy"
STORE = "store.sqlite"
FAISS = "index.faiss"
_REBUILD = "Restore the index from a copy, or build it again with `fgclep index build`."

# Below this a search takes milliseconds on any processor, and bringing the vectors to a GPU takes longer than many.
_GPU_FROM_ROWS = 50_000
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA and AMD; torch and FAISS take seconds to import and ask

BackendName = Literal["auto", "numpy", "faiss", "torch", "faiss-gpu"]
CPU_BACKENDS: tuple[BackendName, ...] = ("numpy", "faiss")
_ON_GPU: tuple[BackendName, ...] = ("torch", "faiss-gpu")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenIndex:
    """A version directory, checked and ready to search.

    Attributes:
        path: the version directory.
        vectors: memory-mapped float32 or float16, shape (N, dim), unit rows.
        keys: int64, shape (N,), ascending: the `records.key` of every row.
        lease: keeps `index gc` from removing the version while this object lives.
        codes: the same rows as bytes, where the index was built with them.
    """

    path: Path
    manifest: IndexManifest
    store: Store
    vectors: Vectors
    keys: NDArray[np.int64]
    backend: Backend
    lease: Lease
    codes: Codes | None = None

    def close(self) -> None:
        """Close the store and let the version go; arrays that were taken from it stay readable."""
        self.store.close()
        self.lease.close()


def open_index(path: Path, *, verify_checksums: bool = False, backend: BackendName = "auto") -> OpenIndex:
    """Open an index version.

    Args:
        path: the version directory (see `indexer.home.resolve_index`).
        verify_checksums: read every file and compare its SHA-256; sizes and counts are always compared.
        backend: `numpy`, `faiss`, `torch` or `faiss-gpu`; or `auto`: the first GPU backend that passes its self-test if
            there is a GPU and the index is large, else numpy.

    Raises:
        CorruptionError: if a file is missing, damaged, or the counts of vectors, keys and records differ.
        CompatibilityError: if a newer fgclep wrote it.
        NotSetUpError: if a backend was asked for whose package or GPU is missing, or the version was removed meanwhile.
    """
    lease = take_lease(path)
    try:
        return _open(path, lease, verify_checksums, backend)
    except BaseException:
        lease.close()
        raise


def _open(path: Path, lease: Lease, verify_checksums: bool, backend: BackendName) -> OpenIndex:
    manifest = read_manifest(path)
    check_files(path, manifest, checksums=verify_checksums)
    stored = STORED.get(manifest.dtype, manifest.dtype)
    vectors = _load_array(path / VECTORS, stored, (manifest.counts.indexed, manifest.model.dim))
    keys = np.asarray(_load_array(path / KEYS, "int64", (manifest.counts.indexed,)))
    codes = load_codes(path, vectors)
    store = open_store(path / STORE)
    try:
        if (records := store.count("records")) != len(keys):
            raise CorruptionError(f"{path / STORE} has {records} records, but there are {len(keys)} vectors.", _REBUILD)
        engine = open_backend(path, vectors, backend)
    except Exception:
        store.close()
        raise
    return OpenIndex(path, manifest, store, vectors, keys, engine, lease, codes)


def matching_model(manifest: IndexManifest, model: str | None = None) -> Path:
    """Find the model that an index was built with, so that queries are encoded by the right text tower.

    Args:
        manifest: of the opened index.
        model: a name or path the user insists on; None looks for the index's own, by path and then by name.

    Raises:
        CompatibilityError: if the model found has another fingerprint than the index.
        NotSetUpError: if no such model exists.
    """
    from fgclep.pretrained import SHIPPED_MODEL, bundle_fingerprint, resolve_model

    if model is not None:
        found = resolve_model(model)
    elif Path(manifest.model.path).is_dir():
        found = Path(manifest.model.path)
    else:
        try:
            found = resolve_model(manifest.model.name)
        except NotSetUpError as error:
            raise NotSetUpError(
                f"Index {manifest.name} ({manifest.version}) was built with model {manifest.model.name} "
                f"[{manifest.model.fingerprint}], which is no longer in {manifest.model.path}.",
                "Name where it is now (--model PATH), or move the index to another model: "
                f"fgclep index rebuild {manifest.name} --model {SHIPPED_MODEL} --activate",
            ) from error
    fingerprint = bundle_fingerprint(found)
    if fingerprint != manifest.model.fingerprint:
        way_out = "Name the model it was built with (--model PATH)" if model is None else "Drop --model"
        raise CompatibilityError(
            f"Index {manifest.name} ({manifest.version}) was built with model {manifest.model.name} "
            f"[{manifest.model.fingerprint}], but {found} is [{fingerprint}]; their vectors cannot be compared.",
            f"{way_out}, or move the index to the other one: "
            f"fgclep index rebuild {manifest.name} --model {model or found} --activate",
        )
    return found


def check_files(path: Path, manifest: IndexManifest, *, checksums: bool, names: Sequence[str] | None = None) -> None:
    """Compare the files of a version with its manifest.

    Args:
        path: the version directory.
        manifest: its manifest.
        checksums: read every file; sizes are compared in any case.
        names: the files to look at; all unless given.

    Raises:
        CorruptionError: naming the first file that is missing, has another size, or (if asked) another checksum.
    """
    for name in manifest.files if names is None else names:
        if (expected := manifest.files.get(name)) is None:
            raise CorruptionError(f"The manifest of {path} does not name {name}.", _REBUILD)
        file = path / name
        if not file.is_file():
            raise CorruptionError(f"{file} is missing from the index.", _REBUILD)
        if (size := file.stat().st_size) != expected.bytes:
            raise CorruptionError(f"{file} has {size:,} bytes; the manifest says {expected.bytes:,}.", _REBUILD)
        if checksums and (found := sha256_file(file)) != expected.sha256:
            raise CorruptionError(
                f"{file} was altered or damaged: SHA-256 {found[:12]}..., the manifest says {expected.sha256[:12]}...",
                _REBUILD,
            )


def open_backend(path: Path, vectors: Vectors, backend: BackendName = "auto") -> Backend:
    """Open the search backend of a version directory and compare it with brute force; see `open_index`.

    Raises:
        CorruptionError: if it disagrees with brute force, or the vectors are not finite.
        NotSetUpError: if the backend that was asked for lacks its package, file or GPU.
    """
    if backend == "auto" and len(vectors) >= _GPU_FROM_ROWS:
        for name in gpu_backends():
            try:
                return _tested(path, vectors, name)
            except (CorruptionError, NotSetUpError, ImportError, OSError, RuntimeError) as error:
                logger.warning("The search backend %s is passed over: %s", name, error)
    return _tested(path, vectors, "numpy" if backend == "auto" else backend)


def gpu_backends() -> tuple[BackendName, ...]:
    """Return the backends that need a GPU if the machine seems to have one; whether they work shows when opened."""
    return _ON_GPU if any(Path(device).exists() for device in _GPU_DEVICES) else ()


def load_codes(path: Path, vectors: Vectors) -> Codes | None:
    """Map the bytes beside the vectors of a version directory; None if it has none.

    Raises:
        CorruptionError: if they do not fit the vectors.
    """
    if not (path / CODES).is_file():
        return None
    scales = np.asarray(_load_array(path / SCALES, "float32", vectors.shape[1:]))
    return Codes(_load_array(path / CODES, "int8", vectors.shape), scales)


def _tested(path: Path, vectors: Vectors, name: BackendName) -> Backend:
    engine = _made(path, vectors, name)
    self_test(engine, vectors)
    return engine


def _made(path: Path, vectors: Vectors, name: BackendName) -> Backend:
    if name == "torch":
        from indexer.backends.torch_matmul import TorchMatmul

        return TorchMatmul(vectors)
    if name == "faiss-gpu":
        from indexer.backends.faiss_gpu import FaissGpu

        return FaissGpu(vectors)
    if name == "faiss":
        try:
            from indexer.backends.faiss_flat import FaissFlat
        except ImportError as error:
            raise NotSetUpError("The package faiss is not installed.", "pip install 'fgclep[cpu]'") from error
        if not (path / FAISS).is_file():
            raise NotSetUpError(f"{path} has no {FAISS}: faiss was not installed when it was built.", "Build it again.")
        return FaissFlat(path / FAISS, vectors)
    return NumpyMatmul(vectors, load_codes(path, vectors))


def _load_array(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{path} is not a readable array: {error}", _REBUILD) from error
    if array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}"
        raise CorruptionError(f"{path} holds {found}; the manifest says {dtype} {shape}.", _REBUILD)
    return array
