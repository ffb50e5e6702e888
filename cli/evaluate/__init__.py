"""`fgclep evaluate`: measure models as the papers do, and better."""

import typer

from cli.lazy import LazyGroup

COMMANDS: dict[str, str] = {
    "zero-shot": "cli.evaluate.zero_shot:zero_shot",
    "linear-probe": "cli.evaluate.linear_probe:linear_probe",
    "retrieval": "cli.evaluate.retrieval:retrieval",
    "calibrate": "cli.evaluate.calibrate:calibrate",
    "pointing": "cli.evaluate.pointing:pointing",
    "figures": "cli.evaluate.figures:figures",
    "all": "cli.evaluate.run_all:run_all",
    "compare": "cli.evaluate.compare:compare",
}


class _Group(LazyGroup):
    table = COMMANDS
    called = "fgclep evaluate"


app = typer.Typer(cls=_Group, no_args_is_help=True, help="Measure models: zero-shot, probes, retrieval, calibration.")


@app.callback()
def evaluate() -> None:
    """Measure models as the papers do, and better."""
