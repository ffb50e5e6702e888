"""The tables of `store.sqlite`, as SQLAlchemy models; column names carry units and are the names users filter by."""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of one store."""


class RecordRow(Base):
    """One indexed ECG; `key` is the id beside its vector."""

    __tablename__ = "records"
    # What filters ask for stands together in one narrow index, so that they need not read whole rows with reports: a
    # tenth of the bytes.
    __table_args__ = (
        Index(
            "ix_records_filters", "sex", "age_years", "heart_rate_bpm", "rr_interval_ms", "pr_interval_ms",
            "qrs_duration_ms", "qt_interval_ms", "qtc_ms", "p_axis_deg", "qrs_axis_deg", "t_axis_deg", "fold", "fs_hz",
            "duration_s", "ecg_time", "dataset",
        ),
    )  # fmt: skip

    key: Mapped[int] = mapped_column(primary_key=True)
    record_id: Mapped[str] = mapped_column(unique=True)
    dataset: Mapped[str]
    subject_id: Mapped[str] = mapped_column(index=True)
    study_id: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    ecg_time: Mapped[str | None]
    age_years: Mapped[float | None]
    sex: Mapped[str | None]
    fold: Mapped[int | None]
    report: Mapped[str]
    heart_rate_bpm: Mapped[float | None]
    rr_interval_ms: Mapped[float | None]
    pr_interval_ms: Mapped[float | None]
    qrs_duration_ms: Mapped[float | None]
    qt_interval_ms: Mapped[float | None]
    qtc_ms: Mapped[float | None]
    p_axis_deg: Mapped[float | None]
    qrs_axis_deg: Mapped[float | None]
    t_axis_deg: Mapped[float | None]
    fs_hz: Mapped[float]
    duration_s: Mapped[float]
    flags: Mapped[str]
    report_hash: Mapped[str] = mapped_column(index=True)
    extra: Mapped[str]


class SubjectRow(Base):
    """One person of one data set, with the number of indexed records."""

    __tablename__ = "subjects"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(primary_key=True)
    sex: Mapped[str | None]
    records: Mapped[int]


class TagRow(Base):
    """One finding or code of one record: the data set says it, or the record's report does. Case does not matter."""

    __tablename__ = "tags"
    __table_args__ = ({"sqlite_with_rowid": False},)

    tag: Mapped[str] = mapped_column(String(collation="NOCASE"), primary_key=True)
    key: Mapped[int] = mapped_column(ForeignKey("records.key"), primary_key=True, index=True)


class RejectRow(Base):
    """One record that was read and could not be used, and why."""

    __tablename__ = "rejects"

    record_id: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]
    reason: Mapped[str] = mapped_column(index=True)
    detail: Mapped[str]


class MissingRow(Base):
    """One record that the data set lists but whose files are absent."""

    __tablename__ = "missing"

    record_id: Mapped[str] = mapped_column(primary_key=True)
