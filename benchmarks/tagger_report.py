"""Tables on the report tagger: coverage of the MIMIC-IV-ECG statements, agreement with the PTB-XL codes.

    python benchmarks/tagger_report.py --ptbxl DIR --statements FILE

The PTB-XL codes are judgements of people who saw the ECG *and* edited machine reports, so a code without words in the
report is no fault of the tagger: recall against codes is bounded by what reports say. Words typed as codes into a
report ("EDIT: NORM 100") are removed first, or the comparison would flatter.
"""

import argparse
import ast
import csv
import re
import time
from collections import Counter
from pathlib import Path

from fgclep.findings.rules import rule_book
from fgclep.findings.tagger import PARENTS, is_remark, split_report, tag_report, tag_statement

_SAME_AS = {"PRC(S)": "PRC", "LAO/LAE": "LAO", "RAO/RAE": "RAO", "ISC": "ISC"}
_TYPED_CODES = re.compile(r"edit:.*", re.IGNORECASE | re.DOTALL)


def _coverage(statements: list[str]) -> None:
    kinds: Counter[str] = Counter()
    for text in statements:
        kinds["finding" if tag_statement(text) else "remark" if is_remark(text) else "nothing"] += 1
    print(f"\nMIMIC-IV-ECG statements: {len(statements)}")
    for kind, count in kinds.most_common():
        print(f"  {kind:8} {count:5} {100 * count / len(statements):6.2f} %")


def _codes(cell: str) -> set[str]:
    codes = {_SAME_AS.get(code, code.rstrip("_")) for code in ast.literal_eval(cell)}
    return codes | {parent for code in codes for parent in PARENTS.get(code, ())}


def _row(tagged: int, right: int, coded: int) -> str:
    precision = f"{right / tagged:9.2f}" if tagged else f"{'-':>9}"
    return f"{tagged:7} {precision} {right / coded:7.2f}"


def _agreement(root: Path, folds: range) -> None:
    with (root / "ptbxl_database.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if int(row["strat_fold"]) in folds]
    said, coded, both, sure, sure_both = (Counter[str]() for _ in range(5))
    start = time.perf_counter()
    for row in rows:
        text = rule_book().codes.sub(" ", _TYPED_CODES.sub("", row["report"].lower()))
        tags = {finding for finding, present in tag_report(text).items() if present}
        stated = [assertion for part in split_report(text) for assertion in tag_statement(part)]
        unhedged = {assertion.finding for assertion in stated if assertion.present and not assertion.hedged}
        codes = _codes(row["scp_codes"])
        said.update(tags)
        coded.update(codes)
        both.update(tags & codes)
        sure.update(unhedged)
        sure_both.update(unhedged & codes)
    seconds = time.perf_counter() - start
    print(f"\nPTB-XL folds {folds.start}-{folds.stop - 1}: {len(rows)} reports in {seconds:.1f} s")
    print(f"{'':31}all assertions     without the hedged ones")
    columns = f"{'tagged':>7} {'precision':>9} {'recall':>7}"
    print(f"{'finding':10} {'codes':>6} {columns} {columns}")
    for finding, count in coded.most_common():
        if count >= 10:
            everything = _row(said[finding], both[finding], count)
            print(f"{finding:10} {count:6} {everything} {_row(sure[finding], sure_both[finding], count)}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", type=Path, help="folder with ptbxl_database.csv")
    parser.add_argument("--statements", type=Path, help="text file, one machine statement per line")
    arguments = parser.parse_args()
    if arguments.statements:
        _coverage(arguments.statements.read_text(encoding="utf-8").splitlines())
    if arguments.ptbxl:
        _agreement(arguments.ptbxl, range(1, 9))


if __name__ == "__main__":
    main()
