"""`enrichment.sqlite`: every answer ever had, by report text and run, and which features each validation accepted.

One file serves all data sets. Each slice of answers and each validation is one transaction: after a kill at any
instant the file holds whole slices.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, ForeignKey, create_engine, func, insert, inspect, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fgclep.enrichment.answers import Answer, encodable
from fgclep.enrichment.providers.base import Reply, RunIdentity
from fgclep.errors import CorruptionError, FgclepError, NotSetUpError

_BATCH = 2000


class Base(DeclarativeBase):
    """All tables of the store."""


class RunRow(Base):
    """One prompt, model and sampling."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    prompt: Mapped[str]
    model: Mapped[str]
    sampling: Mapped[str]
    created: Mapped[str]


class TextRow(Base):
    """One normalised report text."""

    __tablename__ = "texts"

    hash: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]


class AnswerRow(Base):
    """What one run answered to one text; `features` is a JSON list, empty where there is a `problem`."""

    __tablename__ = "answers"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    text_hash: Mapped[str] = mapped_column(ForeignKey("texts.hash"), primary_key=True)
    answer: Mapped[str]
    problem: Mapped[str | None]
    features: Mapped[str]
    prompt_tokens: Mapped[int]
    output_tokens: Mapped[int]
    cut: Mapped[bool]


class ValidationRow(Base):
    """One validation: what was scored with which model by which rule, and its report (JSON)."""

    __tablename__ = "validations"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    data: Mapped[str]
    model: Mapped[str]
    rule: Mapped[str]
    report: Mapped[str]
    created: Mapped[str]


class AcceptedRow(Base):
    """The features that a validation accepted for one record: a JSON list of [feature, score]."""

    __tablename__ = "accepted"
    __table_args__ = ({"sqlite_with_rowid": False},)

    validation_id: Mapped[int] = mapped_column(ForeignKey("validations.id"), primary_key=True)
    record_id: Mapped[str] = mapped_column(primary_key=True)
    features: Mapped[str]


@dataclass(frozen=True)
class RunInfo:
    """A run as `fgclep enrich status` shows it.

    Attributes:
        problems: class of bad answers -> how many.
        features: features in all good answers together.
    """

    id: int
    key: str
    prompt: str
    model: str
    sampling: dict[str, Any] | None
    created: str
    answers: int
    problems: dict[str, int]
    features: int
    prompt_tokens: int
    output_tokens: int
    validations: int


class EnrichmentStore:
    """The file, opened for reading and writing; made if it does not exist and `create` is true.

    Raises:
        NotSetUpError: if it does not exist and is not to be made.
        CorruptionError: if it is no such store.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        if not create and not path.is_file():
            raise NotSetUpError(f"{path} does not exist; nothing was enriched yet.", "fgclep enrich run --data PATH")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._engine = create_engine(URL.create("sqlite", database=str(path)))
        with self._transaction() as connection:
            there = inspect(connection).get_table_names()
            if there and RunRow.__tablename__ not in there:
                raise CorruptionError(
                    f"{path} is another database, with the tables {', '.join(there)}; expected an enrichment store.",
                    "--store FILE",
                )
            Base.metadata.create_all(connection)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:  # locked, read-only, disk full
            raise FgclepError(
                f"{self.path} cannot be used: {error.orig}; what was stored before is kept.",
                "Free the disk or end the other run, then repeat the command.",
            ) from error
        except DatabaseError as error:
            raise CorruptionError(
                f"{self.path} is not a readable enrichment store: {error.orig}.", "Move it away and run again."
            ) from error

    def start_run(self, identity: RunIdentity) -> int:
        """Return the id of the run with this identity, a new one if there is none."""
        sampling = json.dumps(identity.sampling and asdict(identity.sampling), sort_keys=True)
        row = {"key": identity.key, "prompt": identity.prompt, "model": identity.model, "sampling": sampling}
        with self._transaction() as connection:
            connection.execute(
                sqlite_insert(RunRow).values(**row, created=_now()).on_conflict_do_nothing(index_elements=["key"])
            )
            return int(connection.execute(select(RunRow.id).where(RunRow.key == identity.key)).scalar_one())

    def find_run(self, identity: RunIdentity) -> int | None:
        """Return the id of the run with this identity, None if there is none."""
        with self._transaction() as connection:
            found: int | None = connection.scalar(select(RunRow.id).where(RunRow.key == identity.key))
            return found

    def answered(self, run_id: int) -> set[str]:
        """Return the hashes of the texts that a run has an answer to, good or bad."""
        with self._transaction() as connection:
            return set(connection.scalars(select(AnswerRow.text_hash).where(AnswerRow.run_id == run_id)))

    def add_answers(self, run_id: int, rows: Sequence[tuple[str, str, Reply, Answer]]) -> None:
        """Store a slice of (hash, text, reply, what was read from it) in one transaction."""
        texts = [{"hash": key, "text": text} for key, text, _, _ in rows]
        answers = [
            {
                "run_id": run_id,
                "text_hash": key,
                "answer": encodable(reply.text),
                "problem": answer.problem,
                "features": json.dumps(answer.features, ensure_ascii=False),
                "prompt_tokens": reply.prompt_tokens,
                "output_tokens": reply.output_tokens,
                "cut": reply.cut,
            }
            for key, _, reply, answer in rows
        ]
        if not rows:
            return
        with self._transaction() as connection:
            connection.execute(sqlite_insert(TextRow).on_conflict_do_nothing(), texts)
            connection.execute(sqlite_insert(AnswerRow).on_conflict_do_nothing(), answers)

    def features_by_hash(self, run_id: int) -> dict[str, tuple[str, ...]]:
        """Return the features of every text that a run has a good answer to."""
        query = select(AnswerRow.text_hash, AnswerRow.features).where(
            AnswerRow.run_id == run_id, AnswerRow.problem.is_(None)
        )
        with self._transaction() as connection:
            return {key: tuple(json.loads(features)) for key, features in connection.execute(query)}

    def iter_answers(self, run_id: int) -> Iterator[dict[str, Any]]:
        """Yield report, answer, prompt_tokens, output_tokens and cut of every answer of a run, by hash."""
        columns = (AnswerRow.answer, AnswerRow.prompt_tokens, AnswerRow.output_tokens, AnswerRow.cut)
        query = (
            select(TextRow.text.label("report"), *columns)
            .join(AnswerRow, AnswerRow.text_hash == TextRow.hash)
            .where(AnswerRow.run_id == run_id)
            .order_by(TextRow.hash)
        )
        with self._transaction() as connection:
            for row in connection.execute(query).mappings():
                yield dict(row)

    def runs(self) -> list[RunInfo]:
        """Return all runs, oldest first, with their counts."""
        with self._transaction() as connection:
            rows = connection.execute(select(RunRow.__table__).order_by(RunRow.id)).mappings().all()
            return [self._describe(connection, row) for row in rows]

    def _describe(self, connection: Connection, row: Mapping[Any, Any]) -> RunInfo:
        of_run = AnswerRow.run_id == row["id"]
        problems = connection.execute(
            select(AnswerRow.problem, func.count()).where(of_run).group_by(AnswerRow.problem)
        ).all()
        features, prompt_tokens, output_tokens = connection.execute(
            select(
                func.sum(func.json_array_length(AnswerRow.features)),
                func.sum(AnswerRow.prompt_tokens),
                func.sum(AnswerRow.output_tokens),
            ).where(of_run)
        ).one()
        validations = connection.scalar(
            select(func.count()).select_from(ValidationRow).where(ValidationRow.run_id == row["id"])
        )
        return RunInfo(
            **{name: row[name] for name in ("id", "key", "prompt", "model", "created")},
            sampling=json.loads(row["sampling"]),
            answers=sum(count for _, count in problems),
            problems={str(problem): count for problem, count in problems if problem is not None},
            features=features or 0,
            prompt_tokens=prompt_tokens or 0,
            output_tokens=output_tokens or 0,
            validations=validations or 0,
        )

    def add_validation(
        self,
        row: Mapping[str, Any],
        accepted: Iterable[tuple[str, Sequence[tuple[str, float]]]],
    ) -> int:
        """Store a validation and its accepted features by record in one transaction; return its id.

        Args:
            row: `run_id`, `data`, `model`, `rule` and `report` of a `ValidationRow`.
            accepted: record id and (feature, score) pairs.
        """
        with self._transaction() as connection:
            number = connection.execute(
                insert(ValidationRow).values(**row, created=_now()).returning(ValidationRow.id)
            ).scalar_one()
            rows = [
                {"validation_id": number, "record_id": record, "features": json.dumps(pairs, ensure_ascii=False)}
                for record, pairs in accepted
            ]
            for start in range(0, len(rows), _BATCH):
                connection.execute(insert(AcceptedRow), rows[start : start + _BATCH])
            return int(number)

    def validations(self) -> list[dict[str, Any]]:
        """Return all validations, oldest first, with `report` and `rule` decoded."""
        with self._transaction() as connection:
            rows = connection.execute(select(ValidationRow.__table__).order_by(ValidationRow.id)).mappings()
            return [{**row, "report": json.loads(row["report"]), "rule": json.loads(row["rule"])} for row in rows]

    def accepted(self, validation_id: int) -> dict[str, list[tuple[str, float]]]:
        """Return the accepted (feature, score) pairs of a validation by record id."""
        query = select(AcceptedRow.record_id, AcceptedRow.features).where(AcceptedRow.validation_id == validation_id)
        with self._transaction() as connection:
            return {
                record: [(str(feature), float(score)) for feature, score in json.loads(features)]
                for record, features in connection.execute(query)
            }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
