"""The scores of text retrieval on PTB-XL, measured in one go and written as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.text_search import (
    TASKS,
    TaskResult,
    TextEncoder,
    WordingResult,
    evaluate_task,
    evaluate_wordings,
    wording_drop,
)
from fgclep.record import RecordInfo

_TABLES = """## Text retrieval: {title}

Each class is asked for by its plain name. AUC, mAP and P@10 are means over classes; prevalence is what chance gives
for mAP and P@10. In brackets: P@10 of a perfect ranking, which rare classes keep below 1.

| task | records | classes | macro AUC | mAP | P@10 | prevalence |
|---|---|---|---|---|---|---|
{task_rows}

## Other wordings

{findings:.0f} findings with at least 10 positives, asked for in {wordings:.0f} wordings that were kept out of training.
AUC by plain name {plain:.3f}; loss of AUC in other words, mean over findings (the worse of two takes the first
waveform description and the first other wording):

| all held-out wordings | synonyms | waveform descriptions | shorthand | worse of two | worst of all |
|---|---|---|---|---|---|
| {mean:.3f} | {synonym:.3f} | {criteria:.3f} | {shorthand:.3f} | {worse_of_two:.3f} | {worst:.3f} |

| finding | plain name | held-out wordings: mean | worst | the worst wording |
|---|---|---|---|---|
{wording_rows}
"""


@dataclass(frozen=True)
class TextSearchScores:
    """Text retrieval by task, by wording, and the summary of the loss in other wordings."""

    tasks: dict[str, TaskResult]
    wordings: list[WordingResult]
    drop: dict[str, float]


def score_text_search(
    infos: Sequence[RecordInfo], ecg: NDArray[np.float32], encode_text: TextEncoder
) -> TextSearchScores:
    """Measure everything on PTB-XL records.

    Args:
        infos: n records with their codes.
        ecg: float32, shape (n, dim), unit norm.
        encode_text: texts to unit-norm vectors.
    """
    wordings = evaluate_wordings(infos, ecg, encode_text)
    tasks = {task: evaluate_task(infos, ecg, encode_text, task) for task in TASKS}
    return TextSearchScores(tasks, wordings, wording_drop(wordings))


def score_tables(scores: TextSearchScores, title: str) -> str:
    """Return the scores as Markdown."""
    return _TABLES.format(
        title=title,
        task_rows="\n".join(_task_row(task, result) for task, result in scores.tasks.items()),
        wording_rows="\n".join(map(_wording_row, scores.wordings)),
        **scores.drop,
    )


def _task_row(task: str, result: TaskResult) -> str:
    return (
        f"| {task} | {result.records:,} | {len(result.auc.by_class)} | {result.auc.mean:.3f} "
        f"| {result.mean_average_precision.mean:.3f} | {result.precision_at_10.mean:.3f} "
        f"({result.best_precision_at_10:.3f}) | {result.prevalence:.3f} |"
    )


def _wording_row(result: WordingResult) -> str:
    worst = result.worst()
    mean = float(np.mean([other.auc for other in result.others]))
    return f"| {result.name} ({result.finding}) | {result.plain:.3f} | {mean:.3f} | {worst.auc:.3f} | {worst.text} |"
