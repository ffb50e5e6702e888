"""Rebuild the index of the built-in demo, fgclep/demo/index, after the shipped model or the generator changed.

    python scripts/build_demo.py [--model NAME|PATH] [-n 400] [--seed 2027] [--out DIR]

The records are made in memory by `fgclep.datasets.synthetic` and go through the same build as anyone's own data.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fgclep.datasets.synthetic import generate_one
from fgclep.demo import demo_index_path
from fgclep.record import EcgRecord, RecordInfo
from indexer.build import plan_build, run_build
from indexer.embed import load_embedder
from indexer.manifest import MANIFEST, manifest_json, read_manifest

NAME = "demo"
RECORDS = 400
SEED = 2027  # another one than training's, so that the demo's records are new to the model


class SyntheticRecords:
    """The first `count` records of a seed, as a data set that an index can be built of."""

    kind = "synthetic"
    name = "synthetic ECGs"
    rates = (500,)
    fs_hz = 500
    missing: tuple[str, ...] = ()

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.listed = count
        self.root = Path(f"synthetic:{seed}")

    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield what is known about each record."""
        for number in range(self.listed):
            yield self._make(number).info

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path of each record; they have no files."""
        for number in range(self.listed):
            yield f"{self.kind}:{self.seed}-{number}", ""

    def read(self, info: RecordInfo) -> EcgRecord:
        """Make one record again from its id, `synthetic:<seed>-<number>`."""
        return self._make(int(info.record_id.rpartition("-")[2]))

    def _make(self, number: int) -> EcgRecord:
        return generate_one(self.seed, number, fs_hz=self.fs_hz).record


def build_demo(out: Path, model: str | None, count: int, seed: int) -> None:
    """Build the demo index with a model and put it in place of `out`."""
    with tempfile.TemporaryDirectory() as home:
        records = SyntheticRecords(seed, count)
        version = run_build(plan_build(records, load_embedder(model, exact=True), NAME, home=Path(home), workers=0))
        _forget_this_machine(version, str(records.root))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(version, out)


def _forget_this_machine(version: Path, root: str) -> None:
    """Name model and data without paths: on the machines that the package goes to, both are found by name."""
    manifest = read_manifest(version)
    model = replace(manifest.model, path=f"shipped:{manifest.model.name}")
    manifest = replace(manifest, model=model, dataset=replace(manifest.dataset, root=root))
    (version / MANIFEST).write_text(manifest_json(manifest), encoding="utf-8")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="bundle to embed with; the shipped one unless given")
    parser.add_argument("-n", type=int, default=RECORDS, help="records (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the generator (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=demo_index_path(), help="default: %(default)s")
    arguments = parser.parse_args()
    build_demo(arguments.out, arguments.model, arguments.n, arguments.seed)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{arguments.out}: {arguments.n} records, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
