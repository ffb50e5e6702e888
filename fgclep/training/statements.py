"""The text side of training: statements whose truth is known for every labelled ECG.

A statement asserts one or more findings, each present or absent; it is true of an ECG when all of them hold. So plain
names, waveform criteria, machine statements ("sinus rhythm with 1st degree A-V block"), conjunctions and negations
("no ST elevation") are all one kind of thing.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.findings.catalog import findings, fold_wording, further_wordings
from fgclep.findings.tagger import tag_statement
from fgclep.training.labels import Labels, finding_ids
from fgclep.training.shorthand import hurried

MAX_TERMS = 5

_TEMPLATES = (
    "{}", "{}", "{}", "{}", "{}", "{}",
    "ECG with {}", "ECG showing {}", "{} on the ECG", "{} is present", "evidence of {}", "an ECG that shows {}",
    "findings: {}", "shows {}", "tracing with {}", "patient with {}", "example of {}",
)  # fmt: skip
_NEGATIONS = ("no {}", "without {}", "no evidence of {}", "absence of {}", "{} is absent", "not {}")
_JOINS = ("{} and {}", "{} with {}", "{}, {}", "{}. {}", "{} plus {}")
_EXCLUSIONS = ("{} without {}", "{} but no {}", "{}, no {}", "{} and no {}", "{} in the absence of {}")


@dataclass(frozen=True)
class Statement:
    """A text and what it asserts: (finding id, +1 present or -1 absent) pairs."""

    text: str
    terms: tuple[tuple[str, int], ...]


def held_out_wordings() -> frozenset[str]:
    """Return all held-out wordings in folded form; none of them may be trained on."""
    return frozenset(fold_wording(w.text) for finding in findings().values() for w in finding.held_out)


def machine_statements(texts: Iterable[str]) -> list[Statement]:
    """Turn report statements of other sources into training statements where the tagger finds anything in them.

    Hedged statements ("possible", "cannot rule out") are kept and count as assertions: that is how machines write. What
    the tagger does not understand of a statement counts for nothing. Held-out wordings are dropped.
    """
    forbidden = held_out_wordings()
    known = set(finding_ids())
    found: list[Statement] = []
    for text in dict.fromkeys(texts):
        terms = tuple(sorted((a.finding, 1 if a.present else -1) for a in tag_statement(text) if a.finding in known))
        if terms and len(terms) <= MAX_TERMS and fold_wording(text) not in forbidden:
            found.append(Statement(text, terms))
    return found


class StatementSampler:
    """Draws the statements of one training step.

    Every finding is asked for once per step in a random wording (rare ones as often as common ones); beside them stand
    machine statements, negations and conjunctions.

    Args:
        machine: statements from `machine_statements`.
        usable: ids of findings that have known labels of both kinds.
        leads_per_step: how many of the lead-wise findings are asked for in one step.
    """

    def __init__(self, machine: Sequence[Statement], usable: Sequence[str], leads_per_step: int = 24) -> None:
        catalogue = findings()
        further = further_wordings()
        self.wordings = {key: [*(w.text for w in catalogue[key].wordings), *further.get(key, ())] for key in usable}
        self.whole = [key for key in usable if catalogue[key].group != "lead"]
        self.by_lead = [key for key in usable if catalogue[key].group == "lead"]
        self.machine = list(machine)
        self.forbidden = held_out_wordings()
        self.leads_per_step = leads_per_step

    def sample(self, rng: random.Random, extra: int) -> list[Statement]:
        """Return one statement per finding plus `extra` machine statements, negations and conjunctions."""
        keys = self.whole + rng.sample(self.by_lead, min(self.leads_per_step, len(self.by_lead)))
        statements = [Statement(self._template(rng, self._word(rng, key)), ((key, 1),)) for key in keys]
        for _ in range(extra):
            draw = rng.random()
            if draw < 0.5 and self.machine:
                statements.append(rng.choice(self.machine))
            elif draw < 0.75:
                key = rng.choice(keys)
                statements.append(Statement(rng.choice(_NEGATIONS).format(self._word(rng, key)), ((key, -1),)))
            else:
                first, second = rng.sample(keys, 2)
                sign = rng.choice((1, -1))
                joined = rng.choice(_JOINS if sign > 0 else _EXCLUSIONS)
                text = joined.format(self._word(rng, first), self._word(rng, second))
                statements.append(Statement(text, ((first, 1), (second, sign))))
        return statements

    def all_texts(self) -> list[str]:
        """Return every wording and machine statement, for the vocabulary."""
        texts = [text for words in self.wordings.values() for text in words]
        return texts + [statement.text for statement in self.machine] + [*_TEMPLATES, *_NEGATIONS, *_JOINS]

    def _word(self, rng: random.Random, key: str) -> str:
        """Return a wording of the finding, some in shorthand; the plain name keeps a share, so that it never gets rare.

        Shorthand may chance upon a held-out wording: the plain name takes its place.
        """
        words = self.wordings[key]
        if rng.random() < 0.15:
            return words[0]
        word = hurried(rng.choice(words), rng)
        return word if fold_wording(word) not in self.forbidden else words[0]

    @staticmethod
    def _template(rng: random.Random, text: str) -> str:
        return rng.choice(_TEMPLATES).format(text)


def statement_labels(statements: Sequence[Statement], labels: Labels) -> NDArray[np.int8]:
    """Return the truth of statements for ECGs.

    Args:
        statements: m statements.
        labels: int8, shape (n, findings), in the order of `finding_ids`.

    Returns:
        int8, shape (n, m): -1 if any asserted term is known to be false, else 0 if any is unknown, else +1.
    """
    column = {key: index for index, key in enumerate(finding_ids())}
    always = labels.shape[1]
    padded = np.concatenate([labels, np.ones((len(labels), 1), np.int8)], axis=1)
    indices = np.full((len(statements), MAX_TERMS), always)
    signs = np.ones((len(statements), MAX_TERMS), np.int8)
    for row, statement in enumerate(statements):
        for position, (key, sign) in enumerate(statement.terms):
            indices[row, position] = column[key]
            signs[row, position] = sign
    truth: NDArray[np.int8] = (padded[:, indices] * signs).min(axis=2)
    return truth
