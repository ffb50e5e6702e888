"""Compiles the search kernel when the package is built or installed from source.

Without a C compiler it is left out, and numpy does its work. The library is loaded by path and knows nothing of Python,
so one wheel serves every Python of a platform.
"""

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "indexer/backends/scan_kernel.c"
LIBRARY = "indexer/backends/scan_kernel.so"  # also the name where shared libraries end otherwise: it is loaded by path


class ScanKernel(BuildHookInterface):
    """Puts the compiled kernel beside its source; the wheel is then of this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say so if that is impossible."""
        source, library = Path(self.root, SOURCE), Path(self.root, LIBRARY)
        fresh = library.is_file() and library.stat().st_mtime > source.stat().st_mtime
        if not fresh and (trouble := compile_kernel(source, library)):
            library.unlink(missing_ok=True)  # it is of another source
            self.app.display_warning(f"The search kernel is left out, searches take up to twice as long: {trouble}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


def compile_kernel(source: Path, library: Path) -> str | None:
    """Compile a C file to a shared library; return what went wrong, or None."""
    if (compiler := shutil.which("cc")) is None:
        return "no C compiler is found (`cc`)"
    unfinished = library.with_suffix(".part")
    command = [compiler, "-O3", "-shared", "-fPIC", "-o", str(unfinished), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return f"{shlex.join(command)}: {result.stderr.strip()[-500:]}"
    unfinished.replace(library)  # a running search keeps the library it has open
    return None
