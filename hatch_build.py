"""Compiles the two kernels when the package is built or installed from source.

Without a C compiler, or where they have nothing for the processor's architecture, they are left out, and numpy and
numkong do their work. They are loaded by path and know nothing of Python, so one wheel serves every Python of a
platform.
"""

import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCES = ("fgclep/frames_kernel.c", "indexer/backends/scan_kernel.c")


class Kernels(BuildHookInterface):
    """Puts the compiled kernels beside their sources; the wheel is then of this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say so if that is impossible."""
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return
        for name in SOURCES:
            source = Path(self.root, name)
            library = source.with_suffix(".so")  # where shared libraries end otherwise, too: it is loaded by path
            if trouble := compile_kernel(source, library):
                if library.is_file() and library.stat().st_mtime < source.stat().st_mtime:
                    library.unlink()  # it is of another source
                if not library.is_file():
                    self.app.display_warning(f"{name} is left out, its work takes longer: {trouble}")
                    continue
            build_data["artifacts"].append(library.relative_to(self.root).as_posix())
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{own_platform()}"


def compile_kernel(source: Path, library: Path) -> str | None:
    """Compile a C file to a shared library; return what went wrong, or None."""
    if (compiler := shutil.which("cc")) is None:
        return "no C compiler is found (`cc`)"
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
        unfinished = Path(folder, library.name)
        command = [compiler, "-O3", "-shared", "-fPIC", "-o", str(unfinished), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            return f"{shlex.join(command)}: {result.stderr.strip()[-500:]}"
        unfinished.replace(library)  # a running search keeps the library it has open
    return None


def own_platform() -> str:
    """Return the tag of this platform that every installer knows; manylinux and musllinux are promises for others."""
    return next(tag for tag in platform_tags() if "manylinux" not in tag and "musllinux" not in tag)
