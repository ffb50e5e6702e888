"""The errors a user can cause or meet, each with the exit code its command ends with."""


class FgclepError(Exception):
    """A failure to be told to the user in one paragraph, with a command that helps.

    Args:
        message: what was found (actual value, file), what was expected.
        hint: what to do next, a command where there is one.
    """

    exit_code = 1
    kind = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(FgclepError):
    """A file or a data set is not what it should be."""

    kind = "data"


class UsageError(FgclepError):
    """An option or expression that cannot be understood."""

    exit_code = 2
    kind = "usage"


class NotSetUpError(FgclepError):
    """A named index, model or data path does not exist."""

    exit_code = 3
    kind = "not-set-up"


class NothingFoundError(FgclepError):
    """No record passed, and the user asked for that to be a failure."""

    exit_code = 4
    kind = "nothing-found"


class CompatibilityError(FgclepError):
    """Two parts do not belong together, such as an index and a model."""

    exit_code = 5
    kind = "incompatible"


class CorruptionError(FgclepError):
    """A file was altered or damaged after it was written."""

    exit_code = 6
    kind = "corrupt"


class TooManyRejectsError(FgclepError):
    """More records were rejected than the user allows."""

    exit_code = 7
    kind = "too-many-rejects"


class InterruptedWork(FgclepError):
    """Work stopped half way and can be resumed."""

    exit_code = 130
    kind = "interrupted"
