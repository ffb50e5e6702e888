"""What a user gets: the wheel, installed beside an environment that has the dependencies, and used from elsewhere."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"fgclep", "indexer", "retrieval", "cli"}


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command that must succeed; return its stdout."""
    programs = f"{Path(sys.executable).parent}:{os.defpath}"  # the second has the compiler
    environment = {"PATH": programs, "HOME": str(cwd), "FGCLEP_HOME": str(cwd / "home")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the build backend that is installed, without a network."""
    pytest.importorskip("hatchling", reason="the build backend is missing: pip install 'fgclep[test]'")
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", build, str(out), cwd=ROOT)
    (file,) = out.glob("fgclep-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into a folder of its own."""
    target = tmp_path_factory.mktemp("installed") / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=target.parent)
    return target


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig"))]


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not path.parent.name.startswith(".build-")  # another process compiles the kernel right now
    }
    assert here - shipped == set()
    for kind in (
        "fgclep/findings/data/*.toml",
        "fgclep/bundles/small/model.safetensors",
        "fgclep/demo/index/manifest.json",
    ):
        assert [name for name in shipped if Path(name).match(kind)], kind


def test_the_wheel_is_of_this_platform_if_it_holds_the_compiled_kernels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    kernels = ("fgclep/frames_kernel", "indexer/backends/scan_kernel")
    assert {f"{kernel}.c" for kernel in kernels} <= names
    can_compile = platform.machine().lower() in ("x86_64", "amd64") and shutil.which("cc", path=os.defpath) is not None
    assert {name for name in names if name.endswith(".so")} == {f"{kernel}.so" for kernel in kernels if can_compile}
    assert wheel.name.endswith("-any.whl") != can_compile and "-py3-none-" in wheel.name


def test_the_licence_and_the_version_travel_along(wheel: Path) -> None:
    from fgclep import __version__

    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"fgclep-{__version__}.dist-info/METADATA").decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert f"fgclep-{__version__}.dist-info/licenses/LICENSE" in archive.namelist()


def test_the_installed_program_searches_the_built_in_demo(installed: Path, tmp_path: Path) -> None:
    program = installed / "bin" / "fgclep"
    assert "Usage: fgclep" in run(program, "--help", cwd=tmp_path, path=installed)
    where = run(sys.executable, "-c", "import cli.main; print(cli.main.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    ids = run(program, "search", "low QRS voltage", "-n", "3", "--ids", cwd=tmp_path, path=installed).split()
    assert len(ids) == 3
