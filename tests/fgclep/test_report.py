"""Reports: numbers arrive in every form of a table, published ones keep their notes, and parts run once."""

import csv
import io
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgclep.errors import DataError, UsageError
from fgclep.evaluation.anchors import anchors
from fgclep.evaluation.benchmarks import BENCHMARKS
from fgclep.evaluation.compare import compare
from fgclep.evaluation.linear_probe import ProbeResult, ProbeRow
from fgclep.evaluation.report_html import page
from fgclep.evaluation.report_search import comparison_tables, retrieval_tables
from fgclep.evaluation.report_table import MISSING, Cell, Column, Row, Table
from fgclep.evaluation.report_tables import IN_DOMAIN, linear_probe_tables, zero_shot_tables
from fgclep.evaluation.results import Interval, Scored, plain
from fgclep.evaluation.run_config import EvaluateConfig, read_evaluate_config
from fgclep.evaluation.run_parts import Part, Product, run_parts
from fgclep.evaluation.zero_shot import ClassResult, ZeroShotResult

ROOT = Path(__file__).resolve().parents[2]


class TestAnchors:
    def test_published_means_are_those_of_the_published_values(self) -> None:
        full = [row for row in anchors("zero-shot") if len(row.values) == 7]
        assert len(full) == 6
        for row in full:
            six = [value for name, (value,) in row.values.items() if name != "mean"]
            assert row.values["mean"][0] == pytest.approx(np.mean(six), abs=0.06), row.model

    def test_columns_are_benchmarks_and_values_percentages(self) -> None:
        for table, width in (("zero-shot", 1), ("linear-probe", 3), ("supervised", 3), ("report-retrieval", 3)):
            columns = {"ecg-to-report", "report-to-ecg"} if table == "report-retrieval" else {*BENCHMARKS, "mean"}
            for row in anchors(table):
                assert set(row.values) <= columns and set(row.cells) <= set(row.values)
                assert row.notes and row.source
                for values in row.values.values():
                    assert len(values) == width and all(np.isnan(v) or 0 < v < 100 for v in values)
            assert len({row.model for row in anchors(table)}) == len(anchors(table))

    def test_nothing_published_stands_beside_repaired_labels(self) -> None:
        tables = ("zero-shot", "linear-probe", "supervised")
        assert all("csn-strict" not in row.values for table in tables for row in anchors(table))

    def test_own_splits_of_the_paper_are_marked(self) -> None:
        for table in ("zero-shot", "linear-probe"):
            for row in anchors(table):
                if "FG-CLEP" in row.model or row.model == "CLEP":
                    assert "51 classes" in row.cells["csn-merl"] and "1,383" in row.cells["cpsc2018"]


TABLE = Table(
    name="t",
    title="Title & <more>",
    lead="Lead 50 %.",
    columns=(Column("model"), Column("AUC", 1), Column("n_x", 0)),
    rows=(
        Row((Cell("a|b & c_d"), Cell(Interval(92.84, 90.0, 95.25), ("first note",)), Cell(1234.0))),
        Row((Cell("<e>"), Cell(Interval(50.0)), Cell(None))),
        Row((Cell("paper"), Cell(77.5, ("second note", "first note")), Cell(float("nan"))), published=True),
    ),
)


class TestTable:
    def test_markdown(self) -> None:
        lines = TABLE.to_markdown().splitlines()
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
        assert [len(row) for row in rows] == [3] * 5
        assert [cell.strip() for cell in rows[2]] == [r"a\|b & c_d", "92.8 [90.0, 95.2] [1]", "1,234"]
        assert [cell.strip() for cell in rows[3]] == ["<e>", "50.0", MISSING]
        assert [cell.strip() for cell in rows[4]] == ["paper", "77.5 [2,1]", MISSING]
        assert [line.strip() for line in lines[-2:]] == ["[1] first note", "[2] second note"]

    def test_words_stand_left_and_numbers_right(self) -> None:
        columns = (Column("a"), Column("b"), Column("c"))
        rows = (Row((Cell("x"), Cell("y"), Cell(1.0))), Row((Cell("x"), Cell(""), Cell(None))))
        table = replace(TABLE, columns=columns, rows=rows)
        assert "| --- | --- | ---: |" in table.to_markdown()
        assert r"\begin{tabular}{llr}" in table.to_latex()
        assert re.findall(r"<t[dh]( scope=col)?( class=words)?>", table.to_html())[:3] == [
            (" scope=col", " class=words"), (" scope=col", " class=words"), (" scope=col", ""),
        ]  # fmt: skip
        assert table.to_html().count("<td class=words>") == 2

    def test_csv_has_full_numbers(self) -> None:
        rows = list(csv.DictReader(io.StringIO(TABLE.to_csv())))
        assert [float(rows[0][key]) for key in ("AUC", "AUC low", "AUC high", "n_x")] == [92.84, 90.0, 95.25, 1234]
        assert rows[1]["AUC low"] == "" and rows[1]["n_x"] == "" and rows[2]["n_x"] == ""
        assert rows[2]["AUC"] == "77.5" and rows[2]["notes"] == "second note | first note"
        assert [row["published"] for row in rows] == ["no", "no", "yes"]
        assert rows[0]["model"] == "a|b & c_d"

    def test_latex_is_escaped_and_rules_published_rows_off(self) -> None:
        text = TABLE.to_latex()
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2] * 4
        assert r"a|b \& c\_d" in rows[1] and r"\textless{}e\textgreater{}" in rows[2] and r"n\_x" in rows[0]
        assert body.count(r"\midrule") == 2 and body.rindex(r"\midrule") < body.index("paper")
        assert not re.search(r"(?<!\\)[%#_]", text.replace(r"\label{tab:t}", ""))
        assert text.count("{") == text.count("}")

    def test_html_is_well_formed_and_escaped(self) -> None:
        seen = Reader.of(TABLE.to_html())
        assert seen.rows == [
            ["model", "AUC", "n_x"], ["a|b & c_d", "92.8 [90.0, 95.2]1", "1,234"], ["<e>", "50.0", MISSING],
            ["paper", "77.52,1", MISSING],
        ]  # fmt: skip
        assert seen.items == ["first note", "second note"]

    def test_a_row_of_another_width_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="t: a row has not 3 cells"):
            replace(TABLE, rows=(Row((Cell("x"),)),))


class Reader(HTMLParser):
    """Collects cells, list items and what the page would fetch; fails on tags that do not match."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.items: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []

    @classmethod
    def of(cls, text: str) -> "Reader":
        reader = cls()
        reader.feed(text)
        assert not reader._open
        return reader

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self._open.append(tag)
        found = {name: value or "" for name, value in attrs}
        self.sources += [found[name] for name in ("src", "srcset", "data") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if "href" in found:
            (self.links if tag == "a" else self.sources).append(found["href"])
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "li":
            self.items.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data
        elif "li" in self._open:
            self.items[-1] += data


def test_the_page_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "p.svg"
    picture.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf-8")
    text = page('T "<x>"', [("data", "a & b")], [TABLE], [('caption "<y>"', picture)], ["part: <failed>"])
    seen = Reader.of(text)
    assert len(seen.sources) == 1 and seen.sources[0].startswith("data:image/svg+xml;base64,")
    assert set(seen.links) == {"#t", "#figures"} <= {f"#{each}" for each in seen.ids}
    assert not re.search(r"@import|url\(|https?://|<script|<link", text)
    assert "Not done: part: &lt;failed&gt;" in text and "a &amp; b" in text and "not for diagnosis" in text
    assert "@media print" in text


def zero_shot_result(benchmark: str, value: float, **change: object) -> ZeroShotResult:
    rows = (ClassResult("A", 10, Interval(value, 0.5, 0.9), Interval(0.4, 0.3, 0.5), Interval(0.3), 0.1),)
    macro = {"auc": Interval(value, 0.5, 0.9), "average_precision": Interval(0.4), "f1": Interval(0.3)}
    result = ZeroShotResult(
        benchmark=benchmark, split="val", source="s", encoder="small", fingerprint="f" * 16, prompts="plain",
        records=90, subjects=80, listed=100, missing=5, unlabelled=3, rejected={"nan": 2}, classes=rows,
        skipped=("B",), macro=macro, chance={"auc": 0.5, "average_precision": 0.1, "f1": 0.2}, thresholds="in-sample",
        draws=1000, seed=7, in_domain=True,
    )  # fmt: skip
    return replace(result, **change)


class TestZeroShotTables:
    def test_ours_stand_beside_the_published_with_their_notes(self) -> None:
        results = [zero_shot_result("ptbxl-super", 0.9), zero_shot_result("ptbxl-sub", 0.8)]
        results.append(zero_shot_result("ptbxl-super", 0.51, encoder="random-small", in_domain=False))
        table, metrics, *by_class = zero_shot_tables(plain(results))
        rows = {row.cells[0].value: row for row in table.rows}
        assert [column.name for column in table.columns] == [
            "model", "prompts", "ptbxl-super", "ptbxl-sub", "mean of six",
        ]  # fmt: skip
        ours = rows["small"].cells
        assert ours[2] == Cell(Interval(90.0, 50.0, 90.0), (IN_DOMAIN,)) and ours[3].value.value == 80.0
        assert ours[4].value is None, "two benchmarks have no mean of six"
        assert rows["random-small"].cells[2].notes == () and rows["random-small"].cells[3].value is None
        merl = next(row for name, row in rows.items() if str(name).startswith("MERL"))
        assert merl.published and merl.cells[2].value.value == 74.2 and merl.cells[0].notes
        supervised = next(row for name, row in rows.items() if str(name).startswith("xresnet1d101"))
        assert supervised.cells[2].value == Interval(92.8, 92.3, 93.3) and supervised.cells[1].value == "supervised"
        assert not [row for row in table.rows[:2] if row.published] and all(row.published for row in table.rows[2:])
        assert "split val" in table.lead and "1,000 draws" in table.lead
        assert metrics.rows[0].cells[2].value == "90 of 100" and metrics.rows[0].cells[3].value == "1 of 2"
        assert "B" in metrics.rows[0].cells[3].notes[0] and "In-sample" in metrics.rows[0].cells[7].notes[0]
        assert [each.name for each in by_class] == ["zero-shot-ptbxl-super-classes", "zero-shot-ptbxl-sub-classes"]
        assert [cell.value for cell in by_class[0].rows[0].cells[:2]] == ["A", 10.0]
        assert len(by_class[0].columns) == 4 and len(by_class[1].columns) == 3

    def test_the_mean_of_six_needs_the_published_six(self) -> None:
        six = [name for name in BENCHMARKS if name != "csn-strict"]
        results = [zero_shot_result(name, 0.7 + number / 100) for number, name in enumerate(six)]
        with_strict = [*results, zero_shot_result("csn-strict", 0.1)]
        for each in (results, with_strict):
            table = zero_shot_tables(plain(each))[0]
            assert table.rows[0].cells[-1].value == pytest.approx(72.5)
        replaced = [*results[:-1], zero_shot_result("csn-strict", 0.9)]
        assert zero_shot_tables(plain(replaced))[0].rows[0].cells[-1].value is None


def test_linear_probe_tables_tell_both_choices_apart() -> None:
    def row(fraction: int, subset: str, value: float) -> ProbeRow:
        nearest = Interval(value - 0.1)
        return ProbeRow(fraction, subset, 10 * fraction, (), 7, value, Interval(value), value + 0.02, 9, 5, nearest)

    result = ProbeResult(
        benchmark="ptbxl-form", split="test", source="s", selected_on="val", encoder="small", fingerprint="f" * 16,
        feature_dim=8, records=9, subjects=9, listed=9, missing=0, unlabelled=0, rejected={}, train_listed=1000,
        train_records=1000, published_subset_exact=False, classes=("A",), skipped=(),
        rows=(row(1, "published", 0.6), row(1, "stratified", 0.65), row(100, "all", 0.8)), draws=0, seed=0,
        in_domain=False,
    )  # fmt: skip
    [table] = linear_probe_tables([plain(result)])
    cells = {str(row.cells[1].value): [cell.value for cell in row.cells[2:]] for row in table.rows if not row.published}
    values = {name: [getattr(value, "value", value) for value in found] for name, found in cells.items()}
    assert values["test at best val, published subset"] == pytest.approx([60, 80])
    assert values["test at best val, stratified subset"] == pytest.approx([65, 80])
    assert values["max test, published subset"] == pytest.approx([62, 82])
    assert values["nearest neighbours, stratified subset"] == pytest.approx([55, 70])
    assert [column.name for column in table.columns] == ["model", "what", "1 %", "100 %"]
    paper = next(row for row in table.rows if str(row.cells[0].value).startswith("FG-CLEP v1"))
    assert [cell.value for cell in paper.cells[2:]] == [68.91, 85.42]
    assert "same draw over the records at hand" in table.rows[0].cells[0].notes[0]
    assert not any("learned with the labels" in note for row in table.rows for note in row.cells[0].notes)
    supervised = linear_probe_tables([plain(replace(result, in_domain=True))])[0]
    assert all("learned with the labels" in row.cells[0].notes[-1] for row in supervised.rows if not row.published)
    same = replace(result, split="val")
    assert "optimistic" in linear_probe_tables([plain(same)])[0].rows[0].cells[1].notes[0]


def test_differences_are_shown_as_the_other_model_sees_them() -> None:
    labels = np.random.default_rng(0).random((200, 1)) < 0.5
    ids = tuple(map(str, range(200)))

    def scored(signal: float) -> Scored:
        noise = np.random.default_rng(int(signal * 10)).normal(size=(200, 1))
        return Scored(labels, (noise + signal * labels).astype(np.float32), ("A",), ids, ids)

    found = compare([("ptbxl-super: weak", scored(2.0), scored(0.1))], "auc", 200, seed=0)
    rows = [{**vars(each), "real": each.real} for each in found]
    [table] = comparison_tables([plain({"first": "strong", "draws": 200, "seed": 0, "comparisons": rows})])
    value = table.rows[0].cells[2].value
    assert isinstance(value, Interval) and value.low < value.value < value.high < 0
    assert value.value == pytest.approx(-100 * found[0].difference.value)
    assert table.rows[0].cells[4].value == "real" and "other model minus strong" in table.lead


def retrieval_result(encoder: str, kinds: tuple[str, ...], dataset: str = "ptbxl-all") -> dict[str, Any]:
    """Return the JSON form of a result with compound queries of some kinds, and reports."""
    way = {"average_precision": 0.3, "auc": 0.7, "auc_near_misses": 0.6}
    compound = {"count": dict.fromkeys(kinds, 2), "prevalence": dict.fromkeys(kinds, 0.1)}
    recalls = dict.fromkeys(("recall_at_1", "recall_at_5", "recall_at_10", "mrr"), 0.1)
    counted = {key: {"value": 0.2, "low": None, "high": None} for key in recalls}
    chances = dict.fromkeys(("equal_chance", "own_best", "own_chance"), recalls)
    direction = {"equal": counted, "own": counted, **chances}
    return {
        "dataset": dataset, "split": "val", "encoder": encoder, "note": "", "in_domain": False, "records": 9,
        "listed": 9, "draws": 0, "labels": {"queries": []}, "leads": None, "wordings": None,
        "compound": {**compound, "mean": {kind: {"text": way} for kind in kinds}},
        "reports": {"queries": 9, "distinct": 8, "largest": 2, "report_to_ecg": direction, "ecg_to_report": direction},
    }  # fmt: skip


def test_a_kind_of_query_that_one_model_lacks_is_told_of_the_others() -> None:
    results = [retrieval_result("one", ("and", "no")), retrieval_result("two", ("and",))]
    table = next(each for each in retrieval_tables(results) if each.name.startswith("retrieval-compound"))
    told = [(str(row.cells[0].value).split()[-1], row.cells[2].value) for row in table.rows]
    assert told == [("'and'", "one"), ("'and'", "two"), ("'and'", "chance"), ("'no'", "one"), ("'no'", "chance")]


@pytest.mark.parametrize(("dataset", "published"), [("ptbxl-all", True), ("synthetic", False), ("cpsc2018", False)])
def test_published_report_retrieval_stands_beside_ptbxl_alone(dataset: str, published: bool) -> None:
    tables = retrieval_tables([retrieval_result("one", (), dataset)])
    [table] = [each for each in tables if each.name.startswith("retrieval-reports")]
    assert any(row.published for row in table.rows) is published
    assert ("published" in table.title) is published


@dataclass
class Counted:
    """Makes parts that count how often they run."""

    runs: int = 0

    def part(self, name: str = "a", value: object = 1) -> Part:
        def run(folder: Path) -> Product:
            self.runs += 1
            (folder / f"{name}.txt").write_text("x", encoding="utf-8")
            return Product({"value": value, "nan": float("nan")}, (f"{name}.txt",))

        return Part(name, "kind", {"value": value}, run)


class TestParts:
    def test_a_part_is_run_once_for_its_inputs(self, tmp_path: Path) -> None:
        counted, said = Counted(), []
        first = run_parts([counted.part(), counted.part("b")], tmp_path, said.append)
        again = run_parts([counted.part(), counted.part("b")], tmp_path, said.append)
        assert counted.runs == 2 and [each.resumed for each in first + again] == [False, False, True, True]
        assert [each.result for each in first] == [each.result for each in again] == [{"value": 1, "nan": None}] * 2
        assert again[0].files == ("a.txt",) and again[0].key == first[0].key
        run_parts([counted.part(value=2)], tmp_path, said.append)
        assert counted.runs == 3 and said[2:4] == ["a: as kept", "b: as kept"]

    @pytest.mark.parametrize("damage", ["cut", "lost", "of-old-kind"])
    def test_what_is_not_whole_is_run_again(self, tmp_path: Path, damage: str) -> None:
        counted = Counted()
        run_parts([counted.part()], tmp_path, print)
        kept = tmp_path / "parts" / "a.json"
        if damage == "cut":
            kept.write_bytes(kept.read_bytes()[:40])
        elif damage == "lost":
            (tmp_path / "a.txt").unlink()
        else:
            kept.write_text("{}", encoding="utf-8")
        [outcome] = run_parts([counted.part()], tmp_path, print)
        assert counted.runs == 2 and not outcome.resumed and (tmp_path / "a.txt").exists()

    def test_a_failure_is_put_down_and_tried_again(self, tmp_path: Path) -> None:
        counted = Counted()

        def fail(folder: Path) -> Product:
            raise DataError("No data.", "get some")

        parts = [Part("bad", "kind", {}, fail), counted.part()]
        bad, good = run_parts(parts, tmp_path, print)
        assert (bad.error, bad.result) == ("No data. get some", None) and good.error is None
        assert run_parts(parts, tmp_path, print)[0].error == "No data. get some"

    def test_a_stop_keeps_what_was_finished(self, tmp_path: Path) -> None:
        counted = Counted()

        def stop(folder: Path) -> Product:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_parts([counted.part(), Part("stopped", "kind", {}, stop)], tmp_path, print)
        run_parts([counted.part(), counted.part("stopped")], tmp_path, print)
        assert counted.runs == 2


CONFIG = """
models = ["small", "random:small"]
benchmarks = ["ptbxl-super"]
[data]
ptbxl = "ecgs"
"""


def read(tmp_path: Path, text: str) -> EvaluateConfig:
    file = tmp_path / "evaluate.toml"
    file.write_text(text, encoding="utf-8")
    return read_evaluate_config(file)


class TestConfig:
    def test_sections_that_are_not_there_are_not_measured(self, tmp_path: Path) -> None:
        config = read(tmp_path, CONFIG)
        assert config.models == ("small", "random:small") and config.data_of("ptbxl-super") == tmp_path / "ecgs"
        assert (config.zero_shot, config.linear_probe, config.retrieval, config.calibration) == (None,) * 4
        config = read(tmp_path, 'splits = "s"\n' + CONFIG + "[zero_shot]\n[linear_probe]\nfractions = [10]\n")
        assert config.zero_shot is not None and config.zero_shot.prompts == ("plain", "ensemble", "curated")
        assert config.linear_probe is not None and config.linear_probe.fractions == (10,)
        assert config.splits == str(tmp_path / "s")

    def test_prompt_files_are_found_beside_the_configuration(self, tmp_path: Path) -> None:
        config = read(tmp_path, CONFIG + '[zero_shot]\nprompts = ["plain", "own/ckepe.json"]')
        assert config.zero_shot is not None
        assert config.zero_shot.prompts == ("plain", str(tmp_path / "own" / "ckepe.json"))

    def test_the_example_is_valid(self) -> None:
        config = read_evaluate_config(ROOT / "docs" / "examples" / "evaluate.toml")
        assert config.split == "val" and config.zero_shot and config.linear_probe and config.retrieval
        assert config.calibration and config.figures

    @pytest.mark.parametrize(
        ("text", "told", "hint"),
        [
            ("drws = 10\n" + CONFIG, "unknown key 'drws'", "did you mean 'draws'?"),
            (CONFIG + "[zero_shot]\nprompt = []", "zero_shot: unknown key 'prompt'", "did you mean 'prompts'?"),
            (CONFIG + 'ptb = "x"', "unknown key in [data] 'ptb'", "did you mean 'ptbxl'?"),
            (CONFIG.replace("super", "supper"), "unknown benchmark 'ptbxl-supper'", "did you mean 'ptbxl-super'?"),
            (CONFIG + '[calibration]\ndataset = "ptbxl-al"', "unknown dataset 'ptbxl-al'", "'ptbxl-all'?"),
            (CONFIG + '[retrieval]\ndatasets = ["synthetic"]', "[data] has no folder for 'synthetic'", ""),
            ('draws = "many"\n' + CONFIG, "draws is 'many'; expected a whole number", ""),
            ("draws = true\n" + CONFIG, "draws is True; expected a whole number", ""),
            ("draws = -1\n" + CONFIG, "draws is -1; expected zero or more", ""),
            ('split = "dev"\n' + CONFIG, "split is 'dev'; expected one of train, val, test", ""),
            (CONFIG.replace('["ptbxl-super"]', '"ptbxl-super"'), "is 'ptbxl-super'; expected a list", ""),
            (CONFIG.replace('["small", "random:small"]', "[]"), "names no model", ""),
            (CONFIG.replace('models = ["small", "random:small"]', ""), "lacks the key 'models'", "docs/examples"),
            ("zero_shot = 3\n" + CONFIG, "zero_shot is 3; expected a table", ""),
            (CONFIG + "[retrieval]\nbm25 = 1", "bm25 is 1; expected true or false", ""),
            ("models = [", "is not a readable TOML file", ""),
            (CONFIG + '[zero_shot]\nprompts = ["a/x.json", "b/x.json"]', "two of the prompts are named 'x'", ""),
            (CONFIG + '[figures]\nfindings = ["LPQ"]', "there is no finding 'LPQ'", ""),
        ],
    )
    def test_a_mistake_is_named_with_the_nearest_right_word(
        self, tmp_path: Path, text: str, told: str, hint: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, text)
        assert told in caught.value.message and hint in caught.value.hint

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"none.toml is not a readable TOML file"):
            read_evaluate_config(tmp_path / "none.toml")
