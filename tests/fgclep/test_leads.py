"""Leads are found by name, however they are spelt and wherever they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgclep.errors import DataError
from fgclep.leads import LEADS, canonical_lead, canonical_order

SPELLINGS = st.sampled_from([str, str.upper, str.lower, lambda name: f" {name} ", lambda name: f"Lead {name}"])


@given(st.permutations(LEADS), SPELLINGS, st.lists(st.sampled_from(["RESP", "PLETH", "Vx", ""]), max_size=3))
def test_any_order_and_spelling_leads_back_to_the_canonical_order(order, spell, others):
    names = [*others, *(spell(name) for name in order)]
    positions = canonical_order(names, "x")
    assert tuple(canonical_lead(names[position]) for position in positions) == LEADS


@pytest.mark.parametrize("name", ["AVR", "avr", "aVR", " aVR", "lead aVR", "ECG aVR", "LEAD_AVR"])
def test_spellings_of_one_lead(name):
    assert canonical_lead(name) == "aVR"


@pytest.mark.parametrize("name", ["", "V7", "V", "aV", "MLII", "ecg", "I+II"])
def test_other_signals_are_no_leads(name):
    assert canonical_lead(name) is None


@given(st.sampled_from(LEADS))
def test_a_missing_lead_is_named(lead):
    with pytest.raises(DataError, match=rf"file\.hea: lead {lead} is missing"):
        canonical_order([name for name in LEADS if name != lead], "file.hea")


@given(st.sampled_from(LEADS))
def test_a_lead_that_occurs_twice_is_not_guessed(lead):
    with pytest.raises(DataError, match=f"lead {lead} occurs twice"):
        canonical_order([*LEADS, lead.lower()], "file.hea")
