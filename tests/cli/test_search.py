"""`fgclep search`, `similar` and `show` as a user and as a script meet them."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from cli.output import console
from fgclep.leads import LEADS
from fgclep.text_numpy import NumpyTextEncoder
from retrieval.cache import LIBRARY
from tests.retrieval.fakes import SIZE, FakeEncoder, write_index

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(fgclep_home: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program on the toy index; returns exit code, stdout and stderr."""
    monkeypatch.setenv("FGCLEP_INDEX", str(toy))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("retrieval.encoder.BundleEncoder", lambda *arguments: FakeEncoder())

    def call(*words: str) -> tuple[int, str, str]:
        code = main.run(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "v1"
    write_index(path)
    return path


def test_the_table_tells_people_what_was_found(run: Run) -> None:
    code, out, err = run("search", "1 0 0 0", "-n", "3", "--age", "40:")
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines() if line.strip()]
    assert lines[0].startswith("'1 0 0 0'  ·  index toy  ·  ") and lines[0].endswith("age 40:")
    assert lines[1].split() == ["#", "score", "pct", "record", "age/sex", "QRS", "report"]
    assert re.match(r"1 +\d\.\d\d +\d+\.\d +synthetic:3-\d+ +\d+ [FM] +\d+", lines[3].strip())
    assert "Low voltage [limb]" in out  # not taken for markup
    assert re.search(r"Next: fgclep show synthetic:3-\d+ --plot ecg.png", err)


def test_off_a_terminal_nothing_is_cropped_and_columns_is_honoured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run("search", "1 0 0 0")[1]
    assert all(len(re.findall(r"synthetic:3-\d+", line)) <= 1 for line in wide.splitlines())
    assert len([line for line in wide.splitlines() if "synthetic:" in line]) == 10
    assert "…" not in wide
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run("search", "1 0 0 0")[1]
    table = narrow[narrow.index(" # ") if " # " in narrow else narrow.index("#") :]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 60
    assert "…" not in narrow


def test_every_machine_format_tells_the_same_hits(run: Run) -> None:
    words = ("search", "1 0 0 0", "-n", "7", "--where", "qrs >= 100", "--per-patient", "1")
    document = json.loads(run(*words, "--json")[1])
    records = [hit["record"] for hit in document["hits"]]
    assert document["schema"] == 1 and document["considered"] == 60 and len(records) == 7
    assert document["query"]["filters"] == {"where": "qrs >= 100"} and "demo" not in document
    lines = [json.loads(line) for line in run(*words, "--jsonl")[1].splitlines()]
    assert lines == document["hits"]
    table = list(csv.DictReader(run(*words, "--csv")[1].splitlines()))
    assert [row["record"] for row in table] == records and table[0]["report"] in {
        "",
        "Sinus rhythm | Low voltage [limb]",
    }
    assert run(*words, "--ids")[1].split() == records


def test_two_formats_at_once_are_refused(run: Run) -> None:
    code, out, err = run("search", "1 0 0 0", "--csv", "--ids")
    assert (code, out) == (2, "") and "--csv and --ids exclude each other" in err


def test_talk_never_goes_to_stdout_and_can_be_silenced(run: Run) -> None:
    words = ("search", "1 0 0 0", "-n", "1000", "--ids")
    code, out, err = run(*words)
    assert code == 0 and len(out.split()) == SIZE
    assert f"{SIZE} of 1000: the index holds only {SIZE} records" in err
    assert run("-q", *words) == (0, out, "")


def test_similar_is_search_by_example(run: Run) -> None:
    by_alias = run("similar", "synthetic:3-5", "--sex", "F", "--json")
    assert by_alias[0] == 0
    assert json.loads(by_alias[1]) == json.loads(run("search", "--like", "1005", "--sex", "F", "--json")[1]) | {
        "query": json.loads(by_alias[1])["query"]
    }
    assert [hit["score"] for hit in json.loads(by_alias[1])["hits"]] == [None] * 10
    people = run("similar", "1005")[1]
    assert "score" not in people and " sim " in people


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["search"], 2, "nothing to search for"),
        (["search", " "], 2, "The query is empty"),
        (["search", "1 0 0 0", "--where", "agee > 3"], 2, "Did you mean 'age"),
        (["search", "1 0 0 0", "--age", "40"], 2, "--age is '40', expected LOW:HIGH"),
        (["search", "1 0 0 0", "-n", "0"], 2, "at least 1"),
        (["search", "--like", "nobody"], 2, "neither a record or study id"),
        (["search", "1 0 0 0", "--index", "nowhere"], 3, "nowhere"),
        (["search", "1 0 0 0", "--where", "age > 200", "--fail-empty"], 4, "None of 80 records"),
        (["show", "nobody"], 2, "neither a record or study id"),
        (["show", "1005", "--plot", "ecg.gif"], 2, ".png, .svg, .pdf"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(
    run: Run, words: list[str], code: int, says: str
) -> None:
    found, out, err = run(*words)
    assert found == code and says in err and "error: " in err and "Traceback" not in err
    assert not list(Path.cwd().iterdir())
    if "--fail-empty" not in words:
        assert out == ""


def test_zero_hits_are_no_error(run: Run) -> None:
    code, out, err = run("search", "1 0 0 0", "--where", "age > 200")
    assert code == 0 and "0 of 80 records ranked" in out and "no record matches the filters" in err


def test_a_wild_where_cannot_touch_the_store(run: Run, toy: Path) -> None:
    before = (toy / "store.sqlite").read_bytes()
    attacks = ["sex = 'F'; drop table records", "sex = 'F'' or 1=1 --'", "report like '%'') union select 1 --'"]
    for attack in attacks:
        for option in ("--where", "--report-has", "--tag"):
            code, out, _ = run("search", "1 0 0 0", "--ids", option, attack)
            assert (code, out) in {(0, ""), (2, "")}, f"{option} {attack} let {out.split()} through"
    assert (toy / "store.sqlite").read_bytes() == before


def test_search_draws_and_exports_what_it_found(run: Run, fgclep_home: Path) -> None:
    words = ("search", "1 0 0 0", "-n", "2", "--plot", "pictures", "--export", "cases")
    code, _, err = run(*words)
    assert code == 0 and "Drew 2 pictures in pictures" in err and "Exported 2 hits to cases" in err
    assert len(list(Path("pictures").glob("*.png"))) == 2
    assert len(json.loads(Path("cases/hits.json").read_text(encoding="utf-8"))["hits"]) == 2
    code, out, err = run(*words)
    assert (code, out) == (2, "") and "cases already exists" in err


def test_show_tells_everything_and_draws(run: Run) -> None:
    code, out, err = run("show", "1005", "--plot", "new/ecg.svg")
    assert code == 0 and "Drew new/ecg.svg" in err
    shown = dict(line.split(maxsplit=1) for line in out.splitlines() if line.strip())
    assert shown["record"] == "synthetic:3-5" and shown["flags"] == "nan-filled" and shown["tags"] == "SR"
    assert "qrs duration     85 ms" in out and "Low voltage [limb]" in out
    assert "synthetic:3-5" in Path("new/ecg.svg").read_text(encoding="utf-8")
    document = json.loads(run("show", "synthetic:3-5", "--json")[1])
    assert document["schema"] == 1 and document["record"]["qrs_duration_ms"] == 85.0


def test_show_reads_a_file_that_is_in_no_index(run: Run, shared_data: Path) -> None:
    header = next((shared_data / "ptbxl" / "records500").rglob("*.hea"))
    code, out, _ = run("show", str(header), "--plot", "ecg.png")
    assert code == 0 and f"wfdb:{header.stem}" in out and "500 Hz, 10.0 s" in out
    assert Path("ecg.png").stat().st_size > 20_000


def test_a_file_needs_no_index_and_a_synthetic_one_says_what_it_is(run: Run, synthetic_tree: Path) -> None:
    header = sorted(synthetic_tree.rglob("*.hea"))[0]
    code, out, err = run("show", str(header), "--index", "nowhere", "--plot", "ecg.svg")
    assert (code, err) == (0, "Drew ecg.svg\n")
    assert "source           synthetic ECG made by fgclep" in out
    assert ">synthetic<" in Path("ecg.svg").read_text(encoding="utf-8")
    assert run("show", str(header.with_suffix("")), "--index", "nowhere")[0] == 3


def test_reports_and_ids_are_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("wfdb:set[1]/a:heart:b [bold]")
    assert capsys.readouterr().out == "wfdb:set[1]/a:heart:b [bold]\n"


@pytest.fixture(scope="session")
def built(tiny_bundle: Path, synthetic_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a real index of synthetic ECGs, made by a real if untrained model."""
    from indexer.build import open_for_model, plan_build, run_build
    from indexer.embed import load_embedder

    home, embedder = tmp_path_factory.mktemp("built"), load_embedder(str(tiny_bundle))
    run_build(plan_build(open_for_model(synthetic_tree, embedder), embedder, "mine", home=home, workers=0))
    return home


COLD_SEARCH = """
import sys
from cli.main import run

code = run(sys.argv[1:])
heavy = {"torch", "transformers", "faiss", "matplotlib", "wfdb", "pandas", "scipy", "rich"}
heavy |= set() if "--where" in sys.argv else {"sqlalchemy"}
assert not heavy & sys.modules.keys(), f"a search imported {sorted(heavy & sys.modules.keys())}"
sys.exit(code)
"""


def cold_search(*words: str) -> str:
    """Search with --json in a fresh process, which must not import what takes long; returns stdout."""
    root = Path(main.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", COLD_SEARCH, "search", "--json", *words],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cold_search_needs_no_torch_and_answers_as_torch_does(
    built: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(built / "indexes", fgclep_home / "indexes")
    words = ["low QRS voltage, never asked before", "-n", "40", "--where", "fs_hz > 0"]
    first = cold_search(*words)
    assert cold_search(*words) == first  # the same from the cache of query vectors
    (fgclep_home / LIBRARY).unlink()
    monkeypatch.setattr(NumpyTextEncoder, "from_bundle", lambda path: None)
    assert main.run(["search", "--json", *words]) == 0
    by_torch, by_numpy = json.loads(capsys.readouterr().out)["hits"], json.loads(first)["hits"]
    assert len(by_torch) == len(by_numpy) > 30
    similarity = {hit["record"]: hit["similarity"] for hit in by_torch}
    assert all(abs(hit["similarity"] - similarity[hit["record"]]) < 1e-5 for hit in by_numpy)


def test_an_example_of_the_index_needs_no_model_and_another_file_does(
    built: Path, synthetic_tree: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FGCLEP_HOME", str(built))
    known = json.loads(cold_search("sinus rhythm", "-n", "1"))["hits"][0]
    hits = json.loads(cold_search("--like", known["record"], "-n", "3"))["hits"]
    assert len(hits) == 3 and known["record"] not in {hit["record"] for hit in hits}
    header = synthetic_tree / f"{known['path']}.hea"
    assert main.run(["search", "--json", "--like", str(header), "-n", "4"]) == 0
    again = json.loads(capsys.readouterr().out)["hits"]
    assert again[0]["record"] == known["record"] and again[0]["similarity"] > 0.999


def test_a_built_index_is_searched_and_its_hits_are_shown(
    built: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FGCLEP_HOME", str(built))
    assert main.run(["search", "low QRS voltage", "-n", "4", "--per-patient", "1", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len({hit["subject_id"] for hit in hits}) == len(hits) == 4
    assert all(0.0 <= hit["score"] <= 1.0 for hit in hits)
    assert {hit["dataset"] for hit in hits} == {"synthetic"}  # although they lie in MIMIC-IV-ECG's layout
    assert main.run(["show", hits[0]["record"], "--plot", "ecg.svg"]) == 0
    assert ">synthetic<" in Path("ecg.svg").read_text(encoding="utf-8")
    assert "source           synthetic ECG made by fgclep" in capsys.readouterr().out


def test_evidence_names_leads_of_every_hit_when_asked_for(
    built: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FGCLEP_HOME", str(built))

    def search(*words: str) -> str:
        assert main.run(["search", *words, "-n", "2"]) == 0
        return capsys.readouterr().out

    hits = json.loads(search("low QRS voltage", "--explain", "--json"))["hits"]
    for hit in hits:
        shares = [lead["share"] for lead in hit["evidence"]]
        assert {lead["lead"] for lead in hit["evidence"]} <= set(LEADS)
        assert shares and shares == sorted(shares, reverse=True) and shares[-1] > 0 and sum(shares) < 1.001
    plain = json.loads(search("low QRS voltage", "--json"))["hits"]
    assert plain == [{**hit, "evidence": []} for hit in hits]
    title, *_ = (line.split() for line in search("low QRS voltage", "--explain").splitlines() if " pct " in line)
    assert "leads" in title
    assert search("low QRS voltage", "--explain", "--ids").split() == [hit["record"] for hit in hits]
    assert main.run(["similar", hits[0]["record"], "--explain", "--json"]) == 0
    told = capsys.readouterr()
    assert "--explain needs a text" in told.err and json.loads(told.out)["hits"]


def test_findings_of_the_reports_are_tags(
    built: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FGCLEP_HOME", str(built))

    def hits(*words: str) -> list[dict[str, Any]]:
        assert main.run(["search", "low QRS voltage", "-n", "1000", "--json", *words]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["hits"]
        return found

    everything = hits()
    counts = Counter(tag for hit in everything for tag in hit["tags"])
    rhythms = [hit["tags"] for hit in everything if "inus rhythm" in hit["report"]]
    assert rhythms and all("SR" in tags for tags in rhythms)
    for tag in ("SR", min(counts, key=lambda tag: counts[tag])):
        tagged = [hit["record"] for hit in everything if tag in hit["tags"]]
        assert [hit["record"] for hit in hits("--tag", tag.lower())] == tagged


def test_an_index_of_another_model_is_refused(
    built: Path, tiny_bundle: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FGCLEP_HOME", str(built))
    monkeypatch.setattr("fgclep.pretrained.bundle_fingerprint", lambda path: "0" * 16)
    assert main.run(["search", "a text never asked before"]) == 5
    assert "cannot be compared" in capsys.readouterr().err


def test_a_model_that_moved_can_be_named_and_no_other_will_do(
    built: Path, tiny_bundle: Path, other_bundle: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FGCLEP_HOME", str(built))
    assert main.run(["search", "sinus rhythm", "--model", str(other_bundle)]) == 5
    assert "Drop --model" in capsys.readouterr().err
    assert main.run(["search", "sinus rhythm", "--model", str(tiny_bundle)]) == 0
