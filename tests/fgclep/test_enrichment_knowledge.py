"""The knowledge base: complete, sourced, honest about held-out wordings, and in agreement with the tagger."""

import csv
import itertools

import pytest

from fgclep.enrichment.answers import clean_features, read_answer
from fgclep.enrichment.knowledge import features_of_report, knowledge, knowledge_fingerprint, knowledge_sources
from fgclep.enrichment.prompts import MAX_FEATURE_CHARS, MAX_FEATURES
from fgclep.enrichment.providers.knowledge_base import KnowledgeBase
from fgclep.enrichment.truth import feature_terms
from fgclep.findings.catalog import findings, fold_wording

# Nothing can be said of a single waveform: collective names, and remarks about the recording.
NO_WAVEFORM_OF_THEIR_OWN = {"STTC_SUB", "TNOS", "NOISE", "WANDER"}
FEATURES = [(key, feature) for key, criteria in knowledge().items() for feature in criteria.features]


def test_every_finding_has_criteria() -> None:
    wanted = {key for key, finding in findings().items() if finding.group not in ("lead", "superclass")}
    assert wanted - set(knowledge()) <= NO_WAVEFORM_OF_THEIR_OWN
    assert not set(knowledge()) & NO_WAVEFORM_OF_THEIR_OWN


def test_every_source_is_used() -> None:
    assert set(knowledge_sources()) == {source for criteria in knowledge().values() for source in criteria.sources}


def test_no_criterion_is_a_wording_kept_out_of_training() -> None:
    held_out = {fold_wording(wording.text) for finding in findings().values() for wording in finding.held_out}
    assert [(key, feature) for key, feature in FEATURES if fold_wording(feature) in held_out] == []


def test_criteria_pass_as_answers() -> None:
    assert all(len(feature) <= MAX_FEATURE_CHARS for _, feature in FEATURES)
    for criteria in knowledge().values():
        assert clean_features(criteria.features) == criteria.features


def test_no_criterion_just_says_the_finding() -> None:
    names = {fold_wording(finding.name) for finding in findings().values()}
    echoes = [feature for key, feature in FEATURES if fold_wording(feature) == fold_wording(findings()[key].name)]
    assert echoes == []
    assert names  # the catalogue was read


@pytest.mark.parametrize(
    ("finding", "areas"),
    [
        ("IMI", {"INF"}),
        ("ISCIN", {"INF"}),
        ("ASMI", {"ANT"}),
        ("ISCAN", {"ANT"}),
        ("LMI", {"LAT"}),
        ("ILMI", {"INF", "LAT"}),
    ],
)
def test_the_tagger_reads_the_same_territory(finding: str, areas: set[str]) -> None:
    """The rules of the tagger are another hand's work: Q, T and ST elevation must stand where it expects them."""
    read = itertools.chain.from_iterable(feature_terms(feature) for feature in knowledge()[finding].features)
    directed = {key.partition("_") for key, sign in read if sign > 0 and key.startswith(("Q_", "TINV_", "STE_"))}
    assert {area for _, _, area in directed} == areas


def test_a_report_gets_the_criteria_of_each_finding_in_turn() -> None:
    features = features_of_report("atrial fibrillation. left bundle branch block. abnormal ecg")
    assert features[:2] == [knowledge()["AFIB"].features[0], knowledge()["CLBBB"].features[0]]
    assert set(features) <= {*knowledge()["AFIB"].features, *knowledge()["CLBBB"].features}


def test_denied_findings_and_unknown_words_get_nothing() -> None:
    assert features_of_report("no st elevation") == []
    assert features_of_report("poor data quality, interpretation may be adversely affected") == []
    (reply,) = KnowledgeBase().answer(["nothing known here"])
    assert reply is not None
    assert read_answer(reply.text).problem == "empty"


def test_what_the_report_says_itself_is_not_repeated() -> None:
    said = knowledge()["AFLT"].features[0]
    assert said not in features_of_report(f"atrial flutter. {said.lower()}")
    assert said in features_of_report("atrial flutter")


def test_a_report_of_everything_stays_within_limits() -> None:
    everything = ". ".join(finding.name for finding in findings().values())
    assert len(features_of_report(everything)) == MAX_FEATURES


def test_the_identity_follows_the_criteria() -> None:
    assert KnowledgeBase().identity.model == f"knowledge-base@{knowledge_fingerprint()}"
    assert KnowledgeBase().identity.sampling is None


def test_most_machine_reports_get_features(shared_data) -> None:
    with (shared_data / "text" / "mimic_iv_ecg_reports_610.csv").open(encoding="utf-8") as file:
        reports = [row["report"] for row in csv.DictReader(file)]
    with_features = sum(bool(features_of_report(report)) for report in reports)
    assert with_features / len(reports) > 0.97
