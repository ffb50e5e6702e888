"""The log of training steps: what a killed run leaves in it, and TensorBoard beside it."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fgclep.errors import CorruptionError
from fgclep.training.step_log import StepLog


def test_rows_after_the_checkpoint_and_a_half_written_one_are_dropped(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.add(step, {"loss": step / 10})
    log.close()
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    resumed = StepLog(tmp_path, 2)
    resumed.add(3, {"loss": 0.3})
    resumed.close()
    rows = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"step": step, "loss": step / 10} for step in (1, 2, 3)]


def test_a_log_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text("hello\n", encoding="utf-8")
    with pytest.raises(CorruptionError, match="no step: 'hello"):
        StepLog(tmp_path, 1)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = StepLog(tmp_path, 0)
    log.add(1, {"loss": 0.5})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5)]


def test_without_tensorboard_rows_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = StepLog(tmp_path, 0)
    log.add(1, {"loss": 0.5})
    log.close()
    assert log.path.read_text(encoding="utf-8") == '{"step": 1, "loss": 0.5}\n'
    assert not (tmp_path / "tensorboard").exists()
