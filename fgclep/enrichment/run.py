"""Ask a provider about every text that has no answer yet, slice by slice, each slice stored before the next."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fgclep.enrichment.answers import read_answer
from fgclep.enrichment.providers.base import Provider
from fgclep.enrichment.store import EnrichmentStore
from fgclep.errors import FgclepError

_HOPELESS_SLICES = 3  # texts without an answer wait for the next run and fill its slices; so many are no accident


@dataclass
class RunTally:
    """Running counts over texts; `resumed` of the `done` ones were answered in an earlier run.

    Attributes:
        problems: class of bad answers of this run -> how many.
        unanswered: texts the provider had no reply to; they are asked again next time.
        failure: why the last of these has none, as far as that is known.
        features: features read in this run.
    """

    total: int
    done: int = 0
    resumed: int = 0
    unanswered: int = 0
    failure: str = ""
    features: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """Bad answers and missing ones of this run."""
        return sum(self.problems.values()) + self.unanswered

    @property
    def warning(self) -> str:
        """Not empty where texts stay unanswered."""
        if not self.unanswered:
            return ""
        return f"{self.unanswered:,} reports have no answer; the last: {self.failure or 'nothing came back'}"


def run_enrichment(
    store: EnrichmentStore,
    texts: Mapping[str, str],
    provider: Provider,
    slice_size: int | None = None,
    progress: Callable[[RunTally], None] = lambda tally: None,
) -> RunTally:
    """Answer every text that the run with the provider's identity has no answer to.

    Args:
        store: where answers are and go.
        texts: hash -> normalised report, in the order in which to ask.
        provider: who answers.
        slice_size: texts per slice; the provider's own unless told.
        progress: called after every slice.

    Returns:
        The counts.

    Raises:
        FgclepError: if the provider fails altogether: it never answered a text of a slice, now or in an earlier run, or
            none of several slices in a row. What came before is kept.
    """
    run_id = store.start_run(provider.identity)
    answered = store.answered(run_id)
    waiting = [key for key in texts if key not in answered]
    tally = RunTally(total=len(texts), done=len(texts) - len(waiting), resumed=len(texts) - len(waiting))
    size = slice_size or provider.slice_size
    heard, silent = bool(answered), 0
    for start in range(0, len(waiting), size):
        # Neighbours in the alphabet begin alike, which a prefix cache rewards.
        keys = sorted(waiting[start : start + size], key=texts.__getitem__)
        got = _answer_slice(store, run_id, provider, {key: texts[key] for key in keys}, tally)
        heard, silent = heard or got > 0, 0 if got else silent + len(keys)
        if silent and (not heard or silent >= _HOPELESS_SLICES * size):
            raise _silence_error(provider, silent, tally)
        progress(tally)
    return tally


def _silence_error(provider: Provider, silent: int, tally: RunTally) -> FgclepError:
    why = f" ({tally.failure})" if tally.failure else ""
    return FgclepError(
        f"{provider.identity.model} answered none of {silent} reports in a row{why}; the answers to {tally.done} are "
        "kept.",
        "See that it is up and can answer these reports, then repeat the command.",
    )


def _answer_slice(
    store: EnrichmentStore, run_id: int, provider: Provider, texts: Mapping[str, str], tally: RunTally
) -> int:
    """Return how many of the texts were answered."""
    replies = zip(texts.items(), provider.answer(list(texts.values())), strict=True)
    rows = [(key, text, reply, read_answer(reply.text, cut=reply.cut)) for (key, text), reply in replies if reply]
    store.add_answers(run_id, rows)
    tally.done += len(rows)
    if len(rows) < len(texts):
        tally.unanswered += len(texts) - len(rows)
        tally.failure = provider.failure
    tally.features += sum(len(answer.features) for *_, answer in rows)
    tally.problems.update(str(answer.problem) for *_, answer in rows if answer.problem)
    return len(rows)
