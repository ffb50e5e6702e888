"""The program's front door: help that costs nothing, options before the command, and how every failure is told."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import main, settings
from fgclep.errors import (
    CompatibilityError,
    CorruptionError,
    DataError,
    FgclepError,
    InterruptedWork,
    NothingFoundError,
    NotSetUpError,
    TooManyRejectsError,
    UsageError,
)

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "faiss", "matplotlib", "wfdb", "pandas", "scipy", "sqlalchemy", "numpy")

BLOCKED_IMPORTS = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise AssertionError(f"help imported {{name}}")

sys.meta_path.insert(0, Refuse())
from cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def fgclep(
    *words: str, code: str = "import sys; from cli.main import run; sys.exit(run())"
) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch, fgclep_home: Path) -> Callable[[BaseException], None]:
    """Register a command `fail [--json]` that raises what the test gives."""

    def register(problem: BaseException) -> None:
        def fail(json_: bool = main.typer.Option(False, "--json")) -> None:
            raise problem

        monkeypatch.setitem(main.COMMANDS, "fail", "a_module:fail")
        monkeypatch.setitem(sys.modules, "a_module", type(sys)("a_module"))
        monkeypatch.setattr(sys.modules["a_module"], "fail", fail, raising=False)

    return register


@pytest.mark.parametrize("command", ["", *main.COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    words = [command, "--help"] if command else ["--help"]
    result = fgclep(*words, code=BLOCKED_IMPORTS)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Usage: fgclep {command}".rstrip() in result.stdout


def test_help_loads_nothing_heavy() -> None:
    """How long it takes is measured by benchmarks/cold_start.py."""
    look = "import sys\nfrom cli.main import run\nrun(['--help'])\nprint('LOADED', *sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.partition("LOADED ")[2].split()}
    assert "typer" in loaded
    assert not loaded & {
        "numpy",
        "sqlalchemy",
        "torch",
        "transformers",
        "faiss",
        "matplotlib",
        "scipy",
        "sklearn",
        "wfdb",
    }


def test_help_lists_every_command_with_a_line() -> None:
    page = fgclep("--help").stdout.partition("Commands")[2]
    described = {words[0] for line in page.splitlines() if len(words := line.strip("│ ").split(maxsplit=1)) == 2}
    assert set(main.COMMANDS) <= described


def test_no_arguments_is_a_short_help_with_three_examples(
    capsys: pytest.CaptureFixture[str], fgclep_home: Path
) -> None:
    assert main.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 10
    assert sum(line.startswith("  fgclep ") for line in lines) == 3


def test_version_and_short_help_option(capsys: pytest.CaptureFixture[str]) -> None:
    from fgclep import __version__

    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"fgclep {__version__}\n"
    assert main.run(["-h"]) == 0
    assert "Usage: fgclep" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["search", "r\udcfcck", "--json"], ["index", "build", "--data", "r\udcfcck", "--json"]]
)
def test_words_that_are_not_utf_8_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], fgclep_home: Path
) -> None:
    assert main.run(words) == UsageError.exit_code
    captured = capsys.readouterr()
    assert "error: The word 'r\\udcfcck' of the command is not UTF-8." in captured.err
    assert json.loads(captured.out)["error"]["kind"] == "usage" and not fgclep_home.exists()


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (DataError("m.", "h"), 1),
        (UsageError("m.", "h"), 2),
        (NotSetUpError("m.", "h"), 3),
        (NothingFoundError("m.", "h"), 4),
        (CompatibilityError("m.", "h"), 5),
        (CorruptionError("m.", "h"), 6),
        (TooManyRejectsError("m.", "h"), 7),
        (InterruptedWork("m.", "h"), 130),
    ],
)
def test_a_failure_is_one_paragraph_and_a_hint(
    problem: FgclepError,
    code: int,
    failing_command: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_command(problem)
    assert main.run(["fail"]) == code
    assert capsys.readouterr() == ("", "error: m.\nhint: h\n")
    assert main.run(["fail", "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"code": code, "kind": problem.kind, "message": "m.", "hint": "h"}}
    assert err == "error: m.\nhint: h\n"


def test_an_unexpected_failure_is_one_line_and_shows_more_when_asked(
    failing_command: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing_command(ZeroDivisionError("by zero"))
    assert main.run(["fail"]) == 1
    plain = capsys.readouterr().err
    assert plain.startswith("error: internal error, ZeroDivisionError: by zero\nhint: ")
    assert "Traceback" not in plain
    assert main.run(["-vv", "fail"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("FGCLEP_DEBUG", "1")
    assert main.run(["fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_no_internal_error(
    failing_command: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_command(OSError(28, "No space left on device", "out/x.npy"))
    assert main.run(["fail"]) == 1
    assert capsys.readouterr().err == "error: No space left on device: out/x.npy\n"


def test_ctrl_c_ends_with_130(
    failing_command: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_command(KeyboardInterrupt())
    assert main.run(["fail"]) == 130
    assert capsys.readouterr().err == "error: Interrupted.\n"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["serch", "x"], "error: fgclep has no command 'serch'; did you mean 'search'?", "hint: fgclep search"),
        (["doctor", "--frob"], "error: No such option: --frob", "hint: fgclep doctor --help"),
        (["--frob"], "error: No such option: --frob", "hint: fgclep --help"),
    ],
)
def test_wrong_words_are_usage_errors(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str], fgclep_home: Path
) -> None:
    assert main.run(words) == 2
    assert capsys.readouterr().err.splitlines() == [message, hint]


def test_a_closed_pipe_is_quiet() -> None:
    code = textwrap.dedent("""
        import sys, types
        from cli import main
        sys.modules["a_module"] = types.SimpleNamespace(talk=lambda: [print("x" * 99) for _ in range(20_000)] and None)
        main.COMMANDS["talk"] = "a_module:talk"
        sys.exit(main.run(["talk"]))
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=30)
    assert (errors, process.returncode) == (b"", 1)


@pytest.mark.parametrize("group", ["data", "model", "train"])
def test_a_group_without_a_command_is_a_question_not_a_mistake(
    group: str, capsys: pytest.CaptureFixture[str], fgclep_home: Path
) -> None:
    assert main.run([group]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: fgclep {group}" in out
    assert err == ""


@pytest.mark.parametrize(
    ("words", "heard"),
    [(["-q"], ["ERROR"]), ([], ["ERROR", "WARNING"]), (["-v"], ["ERROR", "WARNING", "INFO"])],
)
def test_loudness_opens_our_own_log_lines_only(words: list[str], heard: list[str]) -> None:
    code = textwrap.dedent("""
        import logging, sys, types
        from cli import main
        def speak() -> None:
            for name in ("fgclep.some.module", "foreign"):
                for level in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
                    logging.getLogger(name).log(level, "said")
        sys.modules["a_module"] = types.SimpleNamespace(speak=speak)
        main.COMMANDS["speak"] = "a_module:speak"
        sys.exit(main.run([*sys.argv[1:], "speak"]))
    """)
    lines = fgclep(*words, code=code).stderr.splitlines()
    assert [line.split()[0] for line in lines if "fgclep.some.module" in line] == heard
    assert [line.split()[0] for line in lines if "foreign" in line] == ["ERROR", "WARNING"]


class TestSettings:
    def test_flag_then_environment_then_project_then_user_then_default(
        self, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = Path.cwd() / "a" / "b"
        deep.mkdir(parents=True)
        assert settings.resolve("index") == settings.Setting("index", None, "default")
        fgclep_home.mkdir()
        user = fgclep_home / settings.USER_FILE
        user.write_text('index = "user"\nmodel = "user-model"\n')
        assert settings.resolve("index") == settings.Setting("index", "user", str(user))
        project = Path.cwd() / settings.PROJECT_FILE
        project.write_text('index = "project"\n')
        monkeypatch.chdir(deep)
        assert settings.resolve("index") == settings.Setting("index", "project", str(project))
        assert settings.resolve("model") == settings.Setting("model", "user-model", str(user))
        monkeypatch.setenv("FGCLEP_INDEX", "environment")
        assert settings.resolve("index") == settings.Setting("index", "environment", "FGCLEP_INDEX")
        assert settings.resolve("index", "flag") == settings.Setting("index", "flag", "flag")

    def test_the_nearest_project_file_wins(self, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        inner = Path.cwd() / "inner"
        inner.mkdir()
        (Path.cwd() / settings.PROJECT_FILE).write_text('device = "cuda"\n')
        (inner / settings.PROJECT_FILE).write_text('index = "near"\n')
        monkeypatch.chdir(inner)
        assert settings.text("index") == "near"
        assert settings.text("device") == "auto"

    def test_paths_in_a_file_are_relative_to_the_file(self, fgclep_home: Path) -> None:
        (Path.cwd() / settings.PROJECT_FILE).write_text('data = "ecgs"\nindex = "./my-index"\nmodel = "small"\n')
        assert settings.text("data") == str(Path.cwd() / "ecgs")
        assert settings.text("index") == str(Path.cwd() / "my-index")
        assert settings.text("model") == "small"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('indx = "a"', ["'indx'", "did you mean 'index'"]),
            ("zebra = 1", ["'zebra'", "index, model, data, device, offline"]),
            ("index = 3", ["index is 3", "text in quotes"]),
            ('offline = "yes"', ["offline is 'yes'", "true or false"]),
            ("index =", ["not valid TOML"]),
        ],
    )
    def test_a_bad_file_is_refused_by_name(self, content: str, words: list[str], fgclep_home: Path) -> None:
        file = Path.cwd() / settings.PROJECT_FILE
        file.write_text(content)
        with pytest.raises(UsageError) as caught:
            settings.resolve("index")
        assert str(file) in caught.value.message
        assert all(word in caught.value.message for word in words)

    @pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("0", False), ("False", False)])
    def test_offline_from_the_environment(
        self, value: str, offline: bool, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FGCLEP_OFFLINE", value)
        assert settings.resolve("offline").value is offline

    def test_offline_reaches_the_hub_client(
        self, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        main.run(["--offline", "no-such-command"])
        main.run(["--offline", "doctor", "--json"])
        assert os.environ["HF_HUB_OFFLINE"] == "1"

    def test_home_is_where_the_platform_keeps_data_unless_told(
        self, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert settings.home() == fgclep_home
        monkeypatch.delenv("FGCLEP_HOME")
        assert settings.home().name == "fgclep"
        assert settings.home() != fgclep_home
