"""The rules of the house, held by reading every module's imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fgclep", "indexer", "retrieval", "cli")  # from the bottom up: each may import itself and those before it
MODULES = sorted(path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))

HEAVY = {
    "accelerate", "bm25s", "faiss", "matplotlib", "numkong", "pandas", "scipy", "torch", "transformers", "vllm", "wfdb",
}  # fmt: skip
HEAVY_ALLOWED = {
    "fgclep/models/": {"torch", "transformers"},
    "fgclep/losses": {"torch"},
    "fgclep/training/": {"torch"},
    "indexer/backends/faiss_flat.py": {"faiss"},
}
NOT_IN_CLI = HEAVY | {"numpy", "platformdirs", "sqlalchemy"}


def imported_modules(nodes: list[ast.stmt], *, everywhere: bool) -> set[str]:
    """Names of imported modules: all in the file, or only those that importing the file imports."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not everywhere:
            found |= imported_modules(node.orelse, everywhere=everywhere)
        else:
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)]
            found |= imported_modules(inner, everywhere=everywhere)  # type: ignore[arg-type]
    return found


def top(names: set[str]) -> set[str]:
    """First part of each dotted name."""
    return {name.partition(".")[0] for name in names}


def parse(module: str) -> list[ast.stmt]:
    """Statements of one module."""
    return ast.parse((ROOT / module).read_text(encoding="utf-8")).body


def heavy_allowed(module: str) -> set[str]:
    """Heavy modules that this file may import when it is itself imported."""
    return set().union(*(names for place, names in HEAVY_ALLOWED.items() if module.startswith(place)))


@pytest.mark.parametrize("module", MODULES)
def test_no_import_goes_upwards(module: str) -> None:
    package = module.partition("/")[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    assert not top(imported_modules(parse(module), everywhere=True)) & above


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_where_they_are_used(module: str) -> None:
    forbidden = (NOT_IN_CLI if module.startswith("cli/") else HEAVY) - heavy_allowed(module)
    assert not top(imported_modules(parse(module), everywhere=False)) & forbidden


def test_only_settings_reads_the_environment() -> None:
    readers = [
        module
        for module in MODULES
        if any(word in (ROOT / module).read_text(encoding="utf-8") for word in ("os.environ", "os.getenv", "getenv("))
    ]
    assert readers == ["cli/settings.py"]


def test_the_import_reader_sees_what_it_should() -> None:
    source = """
import torch.nn
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import faiss
except ImportError:
    pass
def draw():
    import matplotlib
class Late:
    import scipy
"""
    body = ast.parse(source).body
    assert top(imported_modules(body, everywhere=False)) == {"torch", "typing", "faiss", "scipy"}
    assert {"matplotlib", "pandas"} <= top(imported_modules(body, everywhere=True))
