"""The command line's filters as they were given; `conditions` turns them into SQL when there are any."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.where import Condition


@dataclass(frozen=True)
class Filters:
    """The command line's shorthands, all of which must hold; None or empty means no condition.

    Ranges are `LOW:HIGH`, both ends included, either side may be left open.

    Attributes:
        sex: `F` or `M`.
        date: a range of `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
        report_has: texts of which each must occur in the report, word by word in this order.
        report_lacks: texts of which none may occur.
        tags: findings or codes the record must carry, all of them, in any case.
    """

    where: str | None = None
    sex: str | None = None
    age: str | None = None
    rate: str | None = None
    pr: str | None = None
    qrs: str | None = None
    qtc: str | None = None
    axis: str | None = None
    date: str | None = None
    report_has: tuple[str, ...] = ()
    report_lacks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def condition(self) -> "Condition | None":
        """Join all conditions with `and`; None if there are none.

        Raises:
            UsageError: if one of them cannot be understood.
        """
        if not self.given():
            return None
        from retrieval.conditions import condition_of

        return condition_of(self)

    def given(self) -> dict[str, object]:
        """Return the conditions that were given, by name."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v not in (None, ())}
