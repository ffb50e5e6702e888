"""What the commands of `fgclep evaluate` print alike: who was measured on how many records, tables, intervals."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.evaluation.results import Interval, Measured


def describe(
    result: "Measured",
    in_domain: bool | None,
    *,
    trained: str = "trained in-domain, on this data set",
    unknown: str = "not known whether trained in-domain",
    more: str = "",
) -> str:
    """Say which model it is, what it knew and how many of the records it was measured on.

    Args:
        result: of any measurement.
        in_domain: whether the model was trained on the data set; None: unknown.
        trained: what to say if it was.
        unknown: what to say if nobody knows.
        more: to be said of the model after that.
    """
    knew = {True: trained, False: "not trained on this data set", None: unknown}[in_domain]
    return (
        f"{result.encoder} (fingerprint {result.fingerprint}; {knew}{more}): "
        f"{result.records:,} of {result.listed:,} listed records of {result.subjects:,} subjects; "
        f"{result.missing:,} without files, {result.unlabelled:,} without a class, {rejected(result)} rejected."
    )


def rejected(result: "Measured") -> str:
    """Name the rejected records by reason."""
    return ", ".join(f"{count:,} {reason}" for reason, count in result.rejected.items()) or "0"


def intervals_told(result: Any) -> str:
    """Say what the brackets of a table are."""
    how = f"bootstrap over subjects, {result.draws:,} draws, seed {result.seed}"
    return f"In brackets: 95 % intervals, {how}; too narrow where positives are few."


def table(*titles: str, names: int = 1) -> "Table":
    """Make a table whose first columns hold names, and the others numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(titles):
        made.add_column(title, justify="left" if number < names else "right", overflow="fold")
    return made


def cell(interval: "Interval | None") -> str:
    """Return a value with its interval where there is one."""
    if interval is None:
        return "-"
    known = interval.low == interval.low  # NaN: no interval was computed
    return f"{value(interval.value)} [{interval.low:.3f}, {interval.high:.3f}]" if known else value(interval.value)


def value(number: float) -> str:
    """Return a number with three decimals; a dash for NaN, which stands where nothing could be measured."""
    return "-" if number != number else f"{number:.3f}"
