"""Read what a language model answered. Nothing it may say raises an error: a bad answer has a class and is counted."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fgclep.enrichment.prompts import MAX_FEATURE_CHARS, MAX_FEATURES, repeats_prompt
from fgclep.findings.catalog import fold_wording
from fgclep.reports import clean_report

_MAX_ANSWER_CHARS = 8000
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)


class Problem(StrEnum):
    """Why an answer gives no features."""

    EMPTY = "empty"
    NOT_JSON = "not-json"
    WRONG_SCHEMA = "wrong-schema"
    TOO_LONG = "too-long"
    REPEATS_PROMPT = "repeats-prompt"


@dataclass(frozen=True)
class Answer:
    """The features of one answer, cleaned and without repetition; empty where there is a problem."""

    features: tuple[str, ...] = ()
    problem: Problem | None = None


def read_answer(text: str, *, cut: bool = False) -> Answer:
    """Read one answer.

    A JSON object with a list of texts under `features` is expected; a bare list and a code fence around either are
    accepted, since servers that guide no decoding give them.

    Args:
        text: the answer as it came.
        cut: the answer reached the limit of tokens.
    """
    text = text.strip()
    if not text:
        return Answer(problem=Problem.EMPTY)
    if cut or len(text) > _MAX_ANSWER_CHARS:
        return Answer(problem=Problem.TOO_LONG)
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return Answer(problem=Problem.NOT_JSON)
    listed = value.get("features") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        return Answer(problem=Problem.WRONG_SCHEMA)
    return _judge(clean_features(listed))


def clean_features(texts: Iterable[str]) -> tuple[str, ...]:
    """Return features cleaned like report lines, without blanks and without those that differ in spelling only."""
    features: dict[str, str] = {}
    for text in texts:
        feature = clean_report([encodable(text)]).rstrip(".")
        if key := fold_wording(feature):
            features.setdefault(key, feature)
    return tuple(features.values())


def encodable(text: str) -> str:
    """Replace what UTF-8 cannot hold: JSON may spell half a surrogate pair, and no database would take it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _judge(features: tuple[str, ...]) -> Answer:
    if not features:
        return Answer(problem=Problem.EMPTY)
    if len(features) > MAX_FEATURES or any(len(feature) > MAX_FEATURE_CHARS for feature in features):
        return Answer(problem=Problem.TOO_LONG)
    if any(map(repeats_prompt, features)):
        return Answer(problem=Problem.REPEATS_PROMPT)
    return Answer(features)
