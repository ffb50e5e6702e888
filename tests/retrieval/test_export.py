"""Exports are complete or absent, read back as they were, and say clearly when the data has moved."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgclep.datasets import open_dataset
from fgclep.errors import FgclepError, NotSetUpError, UsageError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord
from fgclep.wfdb_io import read_wfdb
from indexer.manifest import Addition, DatasetRef, IndexManifest
from indexer.open import OpenIndex
from retrieval.encoder import QueryEncoder
from retrieval.export import export_hits, plot_hits
from retrieval.filters import Filters
from retrieval.query import Query
from retrieval.searcher import Hit, Result, Searcher
from retrieval.waveforms import WaveformReader, read_file


@pytest.fixture
def result(index: OpenIndex, encoder: QueryEncoder) -> Result:
    return Searcher(index, encoder).search(Query("1 0 0 0", limit=3, filters=Filters(where="qrs < 120")))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_export_holds_waveforms_pictures_and_tables(index: OpenIndex, result: Result, tmp_path: Path) -> None:
    waveforms = WaveformReader(index.manifest)
    export_hits(result, waveforms, tmp_path / "new" / "set")
    out = tmp_path / "new" / "set"
    names = [f"{hit.rank:03d}_{hit.row['record_id'].replace(':', '_')}" for hit in result.hits]
    assert files_below(out) == sorted(
        ["hits.csv", "hits.json"]
        + [f"pictures/{name}.png" for name in names]
        + [f"waveforms/{name}{suffix}" for name in names for suffix in (".hea", ".dat")]
    )
    content = json.loads((out / "hits.json").read_text(encoding="utf-8"))
    with (out / "hits.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["record"] for row in table] == [hit["record"] for hit in content["hits"]]
    assert table[0]["waveform"] == content["hits"][0]["waveform"] == f"waveforms/{names[0]}"
    for hit, row in zip(result.hits, content["hits"], strict=True):
        original = waveforms.read(hit.row)
        copy = read_wfdb(out / row["waveform"], "copy")
        assert copy.sig_names == LEADS and copy.fs_hz == original.fs_hz
        assert np.abs(copy.waveform - original.waveform).max() < 1e-3
        assert read_file(out / row["waveform"]).info.dataset == "synthetic"  # a copy does not lose its label
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_real_records_survive_the_copy_exactly(
    index: OpenIndex, result: Result, shared_data: Path, tmp_path: Path
) -> None:
    class FileReader(WaveformReader):
        def read(self, row: object) -> object:  # type: ignore[override]
            return records.pop(0)

    headers = sorted((shared_data / "ptbxl" / "records500").rglob("*.hea"))[:3]
    read = [read_file(header.with_suffix("")) for header in headers]
    originals = [EcgRecord(record.info, record.waveform, record.fs_hz, record.flags) for record in read]
    originals[0] = replace(originals[0], info=replace(originals[0].info, report_lines=("Rückbildung\nä",)))
    originals[1] = replace(originals[1], waveform=originals[1].waveform * 40)  # beyond 32 mV
    records = list(originals)
    export_hits(result, FileReader(index.manifest), tmp_path / "out")
    headers = sorted((tmp_path / "out" / "waveforms").glob("*.hea"))
    for header, original, tolerance in zip(headers, originals, (1e-6, 0.02, 1e-6), strict=True):
        assert np.abs(read_file(header.with_suffix("")).waveform - original.waveform).max() < tolerance
    assert "# Report: Rückbildung ä\n" in headers[0].read_text(encoding="utf-8")


def test_a_taken_folder_is_refused_and_left_as_it_is(index: OpenIndex, result: Result, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(UsageError, match="already exists"):
            export_hits(result, WaveformReader(index.manifest), taken)
    assert files_below(tmp_path) == ["note.txt"]
    (tmp_path / "empty").mkdir()
    export_hits(replace(result, hits=()), WaveformReader(index.manifest), tmp_path / "empty")
    assert files_below(tmp_path / "empty") == ["hits.csv", "hits.json"]


def test_an_export_that_fails_half_way_leaves_nothing(index: OpenIndex, result: Result, tmp_path: Path) -> None:
    class Breaks(WaveformReader):
        def read(self, row: object) -> object:  # type: ignore[override]
            if row is result.hits[2].row:
                raise FgclepError("the disk is full")
            return super().read(row)  # type: ignore[arg-type]

    with pytest.raises(FgclepError, match="full"):
        export_hits(result, Breaks(index.manifest), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def moved(hit: Hit) -> Hit:
    """The same hit, as if of a data set with files."""
    return replace(hit, row={**hit.row, "dataset": "ptb-xl", "record_id": "ptb-xl:1"})


def test_data_that_moved_is_named_and_nothing_is_written(index: OpenIndex, result: Result, tmp_path: Path) -> None:
    gone = replace(result, hits=tuple(moved(hit) for hit in result.hits))
    for write in (plot_hits, export_hits):
        with pytest.raises(NotSetUpError, match=r"index toy were read from .*moved-away, which is not there"):
            write(gone, WaveformReader(index.manifest), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_synthetic_tree_in_another_layout_is_still_called_synthetic(index: OpenIndex, synthetic_tree: Path) -> None:
    dataset = open_dataset(synthetic_tree)
    info = next(dataset.iter_infos())
    row = {**result_row(index), "record_id": info.record_id, "dataset": info.dataset, "path": info.path}
    assert read_file(synthetic_tree / info.path).info.dataset == "synthetic"
    reference = DatasetRef(dataset.kind, dataset.name, str(synthetic_tree), dataset.fs_hz)
    manifest: IndexManifest = replace(index.manifest, dataset=reference)
    record = WaveformReader(manifest).read(row)
    assert record.info.dataset == "synthetic"
    assert np.array_equal(record.waveform, dataset.read(info).waveform)


def test_every_record_is_read_from_the_data_it_came_with(index: OpenIndex, synthetic_tree: Path) -> None:
    """An index that has grown: the first records came from a folder that is gone, later ones from another."""
    dataset = open_dataset(synthetic_tree)
    info = next(dataset.iter_infos())
    row = {**result_row(index), "record_id": info.record_id, "dataset": info.dataset, "path": info.path}
    added = Addition(DatasetRef(dataset.kind, dataset.name, str(synthetic_tree), dataset.fs_hz), row["key"], 1)
    reader = WaveformReader(replace(index.manifest, additions=(added,)))
    assert np.array_equal(reader.read(row).waveform, dataset.read(info).waveform)
    with pytest.raises(NotSetUpError, match="moved-away"):
        reader.read({**row, "key": row["key"] - 1})


def result_row(index: OpenIndex) -> dict[str, Any]:
    key = int(index.keys[0])
    return index.store.records([key])[key]


def test_pictures_are_drawn_one_per_hit(index: OpenIndex, result: Result, tmp_path: Path) -> None:
    pictures = plot_hits(result, WaveformReader(index.manifest), tmp_path / "a" / "b")
    assert len(pictures) == 3 and all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
