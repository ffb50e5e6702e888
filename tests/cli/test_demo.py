"""A fresh machine: no index, no settings, no network; and still every search has something to answer."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from cli import demo, main, settings
from fgclep.errors import NotSetUpError

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 24
SEED = 3


@pytest.fixture(scope="module")
def tiny_demo(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo index made by the maintainers' script, with the untrained model."""
    spec = importlib.util.spec_from_file_location("build_demo", ROOT / "scripts" / "build_demo.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path_factory.mktemp("demo") / "index"
    script.build_demo(out, str(tiny_bundle), RECORDS, SEED)
    return out


@pytest.fixture
def fresh_machine(tiny_demo: Path, tiny_bundle: Path, fgclep_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with the tiny demo and the tiny bundle in the place of the shipped ones."""
    monkeypatch.setattr("fgclep.demo.demo_index_path", lambda: tiny_demo)
    monkeypatch.setattr("fgclep.pretrained._SHIPPED", tiny_bundle.parent)
    return fgclep_home


class TestFindIndex:
    def test_nothing_set_means_the_demo_which_says_so_once(
        self, fresh_machine: Path, tiny_demo: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert demo.find_index(None) == tiny_demo
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"demo index: {RECORDS} synthetic ECGs" in err
        assert "fgclep index build" in err

    def test_a_demo_asked_for_by_name_says_nothing(
        self, fresh_machine: Path, tiny_demo: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert demo.find_index("demo") == tiny_demo
        assert capsys.readouterr().err == ""

    def test_an_index_asked_for_is_never_replaced_by_the_demo(
        self, fresh_machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(NotSetUpError, match="'mimic'"):
            demo.find_index("mimic")
        monkeypatch.setenv("FGCLEP_INDEX", "elsewhere")
        with pytest.raises(NotSetUpError, match="'elsewhere'"):
            demo.find_index(None)

    def test_an_index_of_ones_own_comes_before_the_demo(
        self, fresh_machine: Path, tiny_demo: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("mine", "demo"):
            version = fresh_machine / "indexes" / name / "versions" / "1"
            version.parent.mkdir(parents=True)
            version.symlink_to(tiny_demo)
            (fresh_machine / "indexes" / name / "CURRENT").write_text("1\n")
        (fresh_machine / "indexes" / "DEFAULT").write_text("mine\n")
        indexes = fresh_machine / "indexes"
        assert demo.find_index(None).parent == indexes / "mine" / "versions"
        assert demo.find_index("demo").parent == indexes / "demo" / "versions"
        (Path.cwd() / settings.PROJECT_FILE).write_text('index = "demo"\n')
        assert demo.find_index(None).parent == indexes / "demo" / "versions"
        assert capsys.readouterr().err == ""


def test_the_demo_can_be_looked_at_by_its_name(
    fresh_machine: Path, tiny_demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["index", "info", "demo"]) == 0
    out = capsys.readouterr().out
    assert f"{RECORDS} indexed" in out and f"path       {tiny_demo}" in out
    assert "others     none" in out, "what lies beside the demo is no other version of it"
    assert main.run(["index", "verify", "demo"]) == 0


def test_the_demo_names_no_path_of_the_machine_that_made_it(tiny_demo: Path, tiny_bundle: Path) -> None:
    manifest = (tiny_demo / "manifest.json").read_text()
    assert str(tiny_bundle.parent) not in manifest
    assert str(ROOT) not in manifest
    assert json.loads(manifest)["dataset"]["root"] == f"synthetic:{SEED}"


def test_the_demo_command_searches_three_times_and_draws_the_best_hit(
    fresh_machine: Path, tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny_demo.rglob("*")}
    assert main.run(["demo", "--out", str(tmp_path / "pictures")]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("fgclep search")] == [
        f'fgclep search "{query}" --where "{demo.WITHOUT_NOISE}"' for query in demo.QUERIES
    ]
    assert out.count(f"synthetic:{SEED}-") == 3 * 5 + 1
    assert "error" not in err
    picture = tmp_path / "pictures" / "best-hit.png"
    assert str(picture) in out
    assert _share_of_ink(picture) > 0.005
    assert {file: file.stat().st_mtime_ns for file in tiny_demo.rglob("*")} == before
    assert {file.name for file in fresh_machine.rglob("*")} <= {"library.sqlite"}


def _share_of_ink(picture: Path) -> float:
    from matplotlib.image import imread

    return float((imread(picture)[..., :3].max(axis=2) < 0.3).mean())


class TestShipped:
    """The demo that the package carries, with the model that the package carries."""

    def test_it_is_whole_and_belongs_to_the_shipped_model(self) -> None:
        from fgclep.demo import demo_index_path
        from indexer.open import matching_model, open_index

        index = open_index(demo_index_path(), verify_checksums=True)
        assert matching_model(index.manifest).name == "small"
        assert len(index.keys) >= 300

    def test_the_generator_still_makes_the_ecgs_it_was_built_of(self) -> None:
        """After a change of the generator the pictures would no longer fit reports and vectors: rebuild the demo."""
        from fgclep.demo import demo_index_path
        from fgclep.preprocessing import EcgProcessor
        from fgclep.pretrained import load_model, resolve_model
        from indexer.open import open_index
        from retrieval.waveforms import WaveformReader

        index = open_index(demo_index_path())
        rows = list(range(0, len(index.keys), len(index.keys) // 5))
        stored = index.store.records([int(index.keys[row]) for row in rows])
        reader = WaveformReader(index.manifest)
        processor = EcgProcessor.from_pretrained(resolve_model(None))
        records = [reader.read(stored[int(index.keys[row])]) for row in rows]
        prepared = np.stack([processor.prepare(record.waveform, record.fs_hz) for record in records])
        vectors = load_model(resolve_model(None)).encode_ecg(prepared)
        np.testing.assert_allclose(vectors, index.vectors[rows], atol=1e-3)

    @pytest.mark.parametrize(
        ("query", "tags"),
        [
            ("low QRS voltage", {"LVOLT"}),
            ("inverted T waves", {"INVT", "TINV_ANT", "TINV_INF", "TINV_LAT"}),
            ("RSR' pattern in V1", {"IRBBB", "CRBBB"}),
            ("LBBB", {"CLBBB"}),
        ],
    )
    def test_what_is_known_to_be_there_is_found(self, query: str, tags: set[str], fgclep_home: Path) -> None:
        from fgclep.demo import demo_index_path
        from indexer.open import matching_model, open_index
        from retrieval.cache import QueryCache
        from retrieval.encoder import BundleEncoder
        from retrieval.filters import Filters
        from retrieval.query import Query
        from retrieval.searcher import Searcher

        index = open_index(demo_index_path())
        encoder = BundleEncoder(index.manifest, lambda: matching_model(index.manifest), QueryCache(fgclep_home))
        clean = Filters(where=demo.WITHOUT_NOISE)
        result = Searcher(index, encoder).search(Query(text=query, limit=len(index.keys), filters=clean))
        present = [not tags.isdisjoint(hit.row["tags"]) for hit in result.hits]
        assert 3 <= sum(present) <= 100  # chance puts at most 1.25 of them among the first 5
        assert sum(present[:5]) >= 4, f"{sum(present[:5])} of the first 5 have it; {sum(present)} of {len(present)} do"
