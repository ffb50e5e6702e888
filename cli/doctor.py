"""`fgclep doctor`: is everything here that a search needs, and does it compute rightly?"""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import settings
from cli.output import print_json
from fgclep.errors import FgclepError, NotSetUpError

State = Literal["ok", "note", "fail"]
SHOWN_PACKAGES = ("torch", "numpy", "transformers", "SQLAlchemy", "wfdb", "matplotlib")
OPTIONAL = {
    "faiss": "faster search in large indexes: pip install 'fgclep[cpu]', or 'fgclep[gpu]'",
    "vllm": "language-model features on a GPU: pip install 'fgclep[vllm]'",
    "neurokit2": "checks of the synthetic ECGs: pip install 'fgclep[delineate]'",
}


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        state: `ok`; `note` for what is missing without harm; `fail` for what stops work.
        hint: the command that mends it, empty where nothing needs mending.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Check versions, devices, search backends, folders, the model and the indexes.

    Ends with 0 when a search would work, with 3 when something that it needs is missing or broken.
    """
    checks = [check for name, look in LOOKS.items() for check in _guarded(look, name)]
    failed = [check for check in checks if check.state == "fail"]
    verdict = f"{len(failed)} of {len(checks)} checks failed." if failed else "Everything that a search needs works."
    if json_:
        print_json({"schema": 1, "ok": not failed, "verdict": verdict, "checks": [*map(asdict, checks)]})
    else:
        _print_table(checks, verdict)
    if failed:
        raise typer.Exit(NotSetUpError.exit_code)


def _print_table(checks: list[Check], verdict: str) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{check.state:<5} {check.name:<{width}}  {check.detail}")
        if check.hint:
            typer.echo(f"{'':<5} {'':<{width}}  -> {check.hint}")
    typer.echo(verdict)


def _guarded(look: Callable[[], Iterator[Check]], name: str) -> Iterator[Check]:
    """Run one look; whatever it raises becomes a failed check, since a doctor must see all patients."""
    try:
        yield from look()
    except FgclepError as problem:
        yield Check(name, "fail", problem.message, problem.hint)
    except Exception as problem:
        yield Check(name, "fail", f"{type(problem).__name__}: {problem}", "FGCLEP_DEBUG=1 fgclep doctor")
        if settings.debug():
            raise


def look_at_versions() -> Iterator[Check]:
    """Python and the packages that decide how results come about."""
    from importlib import metadata, util

    from fgclep import __version__

    yield Check("fgclep", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield Check("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN_PACKAGES))
    for module, use in OPTIONAL.items():
        there = util.find_spec(module) is not None
        yield Check(
            module, "ok" if there else "note", "installed" if there else "not installed; optional", "" if there else use
        )


def look_at_faiss_packages() -> Iterator[Check]:
    """The builds of FAISS overwrite each other's files."""
    from importlib import metadata

    names = {distribution.name.lower() for distribution in metadata.distributions() if distribution.name}
    builds = sorted(name for name in names if name.startswith("faiss-"))
    if len(builds) > 1:
        hint = f"pip uninstall {' '.join(builds)}, then pip install one of them"
        yield Check("faiss", "fail", f"{' and '.join(builds)} are both installed and overwrite each other", hint)


def look_at_devices() -> Iterator[Check]:
    """What a model can run on, each proved by a product compared with numpy's."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((64, 256), np.float32), rng.standard_normal((256, 64), np.float32)
    names = {f"cuda:{number}": torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
    for device, name in {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads", **names}.items():
        product = (torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device)).cpu().numpy()
        error = float(np.abs(product - left.astype(np.float64) @ right).max())
        state: State = "ok" if error < 0.1 else "fail"  # float32 gives 1e-5, TF32 0.02, a broken kernel anything
        yield Check(f"torch {device}", state, f"{name}; matrix product differs from float64 by {error:.1g}")


def look_at_reading() -> Iterator[Check]:
    """What the compiled kernel makes of a record whose samples alternate in its file, against numpy."""
    import numpy as np

    from fgclep.frames import N_LIMB, constant_signals, copy_leads, has_kernel, limb_covariance
    from fgclep.leads import LEADS

    if not has_kernel():
        yield Check("reading", "ok", "by numpy, no compiled kernel: building an index takes longer")
        return
    stored = np.random.default_rng(0).integers(-32768, 32768, (1003, len(LEADS)), np.int16).T
    order = tuple(reversed(range(len(LEADS))))
    leads = np.empty(stored.shape, np.int16)
    copy_leads(stored, order, leads)
    right = np.array_equal(leads, stored[list(order)]) and constant_signals(stored) == []
    covariance = np.cov(leads[:N_LIMB].astype(np.float64), bias=True)
    if right and np.allclose(limb_covariance(stored, order), covariance, rtol=1e-6):
        yield Check("reading", "ok", "agrees with numpy; by the compiled kernel")
    else:
        hint = "pip install --force-reinstall --no-binary fgclep fgclep"
        yield Check("reading", "fail", "the compiled kernel disagrees with numpy", hint)


def look_at_search_backends() -> Iterator[Check]:
    """Every installed backend against brute force."""
    from importlib import util

    import numpy as np

    from indexer.backends import NumpyMatmul, self_test
    from indexer.backends.kernels import packs
    from indexer.backends.native import native_kernel

    vectors = np.random.default_rng(0).standard_normal((3000, 64), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    self_test(NumpyMatmul(vectors), vectors)
    yield Check("search numpy", "ok", "agrees with brute force")
    halves = vectors.astype(np.float16)
    self_test(NumpyMatmul(halves), halves)
    if native_kernel() is not None:
        yield Check("search float16", "ok", "agrees with brute force; by the compiled kernel")
    else:
        stand_in = f"agrees with brute force; by {'numkong' if packs('float16') else 'numpy'}, no compiled kernel"
        yield Check("search float16", "ok", stand_in)
    if util.find_spec("faiss") is None:
        return
    from indexer.backends.faiss_flat import FaissFlat, write_faiss_index

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.faiss"
        write_faiss_index(vectors, file)
        self_test(FaissFlat(file, vectors), vectors)
    yield Check("search faiss", "ok", "agrees with brute force")


def look_at_home() -> Iterator[Check]:
    """Where indexes go, whether they can, and which files set what."""
    import shutil

    folder = settings.home()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = f"{shutil.disk_usage(existing).free / 2**30:.0f} GiB free"
    if os.access(existing, os.W_OK):
        yield Check("home", "ok", f"{folder}, {free}")
    else:
        yield Check("home", "note", f"{folder} is not writable: searching works, building does not", "FGCLEP_HOME=DIR")
    for key in settings.DEFAULTS:
        setting = settings.resolve(key)
        if setting.origin != "default":
            yield Check(f"setting {key}", "ok", f"{setting.value} (from {setting.origin})")


def look_at_text_search() -> Iterator[Check]:
    """The index's full-text part needs a SQLite built with FTS5."""
    import sqlite3

    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(report)")
    yield Check("sqlite", "ok", f"{sqlite3.sqlite_version} with full-text search")


def look_at_model() -> Iterator[Check]:
    """The model that a build would use, loaded and asked for one embedding."""
    import numpy as np

    from fgclep.pretrained import bundle_fingerprint, load_model, resolve_model

    path = resolve_model(settings.text("model"))
    vector = load_model(path).encode_text(["low QRS voltage"])[0]
    if not np.isfinite(vector).all() or abs(float(np.linalg.norm(vector)) - 1) > 1e-3:
        yield Check(
            "model", "fail", f"{path.name} gives no unit vector for a text", "pip install --force-reinstall fgclep"
        )
        return
    yield Check("model", "ok", f"{path.name}, fingerprint {bundle_fingerprint(path)}, {len(vector)} dimensions")


def look_at_indexes() -> Iterator[Check]:
    """Every published index and the built-in demo, opened as a search opens them."""
    from fgclep.demo import demo_index_path
    from indexer.home import current_version, list_indexes

    entries = list_indexes(settings.home())
    if not entries:
        build = "fgclep index build --data PATH --name NAME"
        yield Check("indexes", "note", "none of your own yet: searches use the built-in demo", build)
    places: dict[str, Callable[[], Path]] = {"built-in demo": demo_index_path}
    places |= {f"index {entry.name}": partial(current_version, entry.directory) for entry in entries}
    for name, find in places.items():
        yield from _guarded(partial(_look_at_index, name, find), name)


def _look_at_index(name: str, find: Callable[[], Path]) -> Iterator[Check]:
    from indexer.open import matching_model, open_index

    index = open_index(find(), backend="numpy")
    model = matching_model(index.manifest)
    yield Check(name, "ok", f"{len(index.keys)} ECGs, searched by {index.backend.name}, model {model.name}")


LOOKS: dict[str, Callable[[], Iterator[Check]]] = {
    "packages": look_at_versions,
    "faiss": look_at_faiss_packages,
    "devices": look_at_devices,
    "reading": look_at_reading,
    "search": look_at_search_backends,
    "sqlite": look_at_text_search,
    "home": look_at_home,
    "model": look_at_model,
    "indexes": look_at_indexes,
}
"""What is looked at, in this order, under the name that a look which breaks off is listed by."""
