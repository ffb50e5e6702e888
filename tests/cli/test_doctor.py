"""`fgclep doctor` says what works, what does not, and which command mends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli import doctor, main
from tests.retrieval.fakes import write_index


@pytest.fixture
def sound(fgclep_home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where everything but the indexes, which other tests build, can be looked at."""
    monkeypatch.setattr("fgclep.pretrained._SHIPPED", tiny_bundle.parent)
    monkeypatch.setattr("fgclep.pretrained.SHIPPED_MODEL", tiny_bundle.name)
    monkeypatch.delitem(doctor.LOOKS, "indexes")
    return fgclep_home


def checks_of(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Parse the JSON that was printed, by name of the check."""
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_a_sound_machine_passes(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Everything that a search needs works."
    assert main.run(["doctor", "--json"]) == 0
    checks = checks_of(capsys)
    assert {"reading", "search numpy", "search float16", "torch cpu", "sqlite", "home", "model"} <= set(checks)
    assert all(check["state"] != "fail" for check in checks.values())
    assert not sound.exists(), "a look must not write"


def test_settings_are_shown_with_their_origin(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGCLEP_INDEX", "mimic")
    assert main.run(["doctor", "--json"]) == 0
    assert checks_of(capsys)["setting index"]["detail"] == "mimic (from FGCLEP_INDEX)"


def test_a_missing_model_ends_with_3_and_the_other_looks_go_on(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGCLEP_MODEL", "no-such-model")
    assert main.run(["doctor", "--json"]) == 3
    checks = checks_of(capsys)
    assert checks["model"]["state"] == "fail"
    assert "no-such-model" in checks["model"]["detail"]
    assert checks["model"]["hint"]
    assert checks["search numpy"]["state"] == "ok"


def test_a_backend_that_computes_wrongly_is_found(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from indexer.backends import NumpyMatmul

    right = NumpyMatmul.search
    monkeypatch.setattr(NumpyMatmul, "search", lambda self, *rest: tuple(part[:, ::-1] for part in right(self, *rest)))
    assert main.run(["doctor", "--json"]) == 3
    assert "disagrees with brute force" in checks_of(capsys)["search"]["detail"]


def test_it_says_who_stands_in_for_a_missing_kernel(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("native", "scan"):
        monkeypatch.setattr(f"indexer.backends.{place}.native_kernel", lambda: None)
    assert main.run(["doctor", "--json"]) == 0
    assert checks_of(capsys)["search float16"]["detail"].endswith("by numkong, no compiled kernel")


def test_it_says_who_takes_samples_apart_and_whether_rightly(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fgclep.frames._kernel", lambda: None)
        assert main.run(["doctor", "--json"]) == 0
    assert "by numpy, no compiled kernel" in checks_of(capsys)["reading"]["detail"]
    monkeypatch.setattr("fgclep.frames.has_kernel", lambda: True)
    monkeypatch.setattr("fgclep.frames.copy_leads", lambda stored, order, into: into.fill(0))
    assert main.run(["doctor", "--json"]) == 3
    assert checks_of(capsys)["reading"]["state"] == "fail"


def test_two_builds_of_faiss_are_a_failure(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Build:
        def __init__(self, name: str) -> None:
            self.name = name

    monkeypatch.setattr(
        "importlib.metadata.distributions", lambda: [Build("faiss-cpu"), Build("faiss-gpu"), Build("rich")]
    )
    assert main.run(["doctor", "--json"]) == 3
    assert checks_of(capsys)["faiss"]["hint"].startswith("pip uninstall faiss-cpu faiss-gpu")


def test_a_damaged_index_does_not_hide_the_others(fgclep_home: Path) -> None:
    pointers = {name: fgclep_home / "indexes" / name / "CURRENT" for name in ("broken", "orphan")}
    write_index(pointers["orphan"].parent / "versions" / "1")
    pointers["broken"].parent.mkdir()
    pointers["broken"].write_text("gone\n")
    pointers["orphan"].write_text("1\n")
    checks = {check.name: check for check in doctor.look_at_indexes()}
    assert "'gone', which does not exist" in checks["index broken"].detail
    assert "built with model fake" in checks["index orphan"].detail
    assert "built-in demo" in checks
