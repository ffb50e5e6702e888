"""Ask a provider about every text that has no answer yet, slice by slice, each slice stored before the next."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fgclep.enrichment.answers import read_answer
from fgclep.enrichment.providers.base import Provider
from fgclep.enrichment.store import EnrichmentStore
from fgclep.errors import FgclepError


@dataclass
class RunTally:
    """Running counts over texts; `resumed` of the `done` ones were answered in an earlier run.

    Attributes:
        problems: class of bad answers of this run -> how many.
        unanswered: texts the provider had no reply to; they are asked again next time.
        features: features read in this run.
    """

    total: int
    done: int = 0
    resumed: int = 0
    unanswered: int = 0
    features: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """Bad answers and missing ones of this run."""
        return sum(self.problems.values()) + self.unanswered


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
        FgclepError: if the provider fails altogether, or answers not one text of a slice; what came before is kept.
    """
    run_id = store.start_run(provider.identity)
    answered = store.answered(run_id)
    waiting = [key for key in texts if key not in answered]
    tally = RunTally(total=len(texts), done=len(texts) - len(waiting), resumed=len(texts) - len(waiting))
    size = slice_size or provider.slice_size
    for start in range(0, len(waiting), size):
        # Neighbours in the alphabet begin alike, which a prefix cache rewards.
        keys = sorted(waiting[start : start + size], key=texts.__getitem__)
        _answer_slice(store, run_id, provider, {key: texts[key] for key in keys}, tally)
        progress(tally)
    return tally


def _answer_slice(
    store: EnrichmentStore, run_id: int, provider: Provider, texts: Mapping[str, str], tally: RunTally
) -> None:
    replies = zip(texts.items(), provider.answer(list(texts.values())), strict=True)
    rows = [(key, text, reply, read_answer(reply.text, cut=reply.cut)) for (key, text), reply in replies if reply]
    if not rows:
        raise FgclepError(
            f"{provider.identity.model} answered none of {len(texts)} reports; the answers to {tally.done} are kept.",
            "See that it is up and knows these reports, then repeat the command.",
        )
    store.add_answers(run_id, rows)
    tally.done += len(rows)
    tally.unanswered += len(texts) - len(rows)
    tally.features += sum(len(answer.features) for *_, answer in rows)
    tally.problems.update(str(answer.problem) for *_, answer in rows if answer.problem)
