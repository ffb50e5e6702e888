"""From the words of an ECG report to findings, by rules.

English (MIMIC-IV-ECG machine statements, PTB-XL), German and Swedish (PTB-XL) are understood. The vocabulary lives in
`data/rules.toml`; this module only knows how a statement is read: which words hedge or deny a finding, and which
territory or leads belong to it.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fgclep.findings.rules import Rule, rule_book
from fgclep.leads import LEADS, canonical_lead

PARENTS: dict[str, tuple[str, ...]] = rule_book().parents
"""Finding -> every more general finding that it asserts too (transitively closed)."""


@dataclass(frozen=True, order=True)
class Assertion:
    """What one statement says about one finding.

    Attributes:
        finding: finding id.
        present: False where the statement denies the finding.
        hedged: the statement is unsure ("possible", "cannot rule out", "moeglich").
    """

    finding: str
    present: bool
    hedged: bool


_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "a", "é": "e", "\N{PRIME}": "'", "’": "'"})
_AREA = "(?:" + "|".join(sorted(rule_book().areas, key=len, reverse=True)) + ")"
_PLACE = rf"\b{_AREA}(?:(?:\s*(?:[+/,&-]|\band\b|\bund\b|\boch\b)\s*)+{_AREA})*\b"
_FILLER = (
    r"(?:old|recent|acute|subacute|extensive|transmural\w*|myocardial|abnormal|atypical|st-t|stj?|t|q|wave|"
    r"akuter?|neuer|frischer|alter|septal wall|wall|region)"
)
_PLACE_BEFORE = re.compile(rf"({_PLACE})(?:[\s,-]+{_FILLER}){{0,3}}[\s,-]*$")
_PLACE_AFTER = re.compile(
    rf"^(?:[\s,:(-]|\b(?:in|the|of|and|with|some|possible|possibly|consider|acute|changes|leads?|wave|wall)\b)*({_PLACE})"
)
_PLACE_LAST = re.compile(rf",\s*({_PLACE})(?:\s+leads)?\s*$")
_PLACE_ANY = re.compile(_PLACE)
_LINK = re.compile(r"\b(?:suggest\w*|consider|due|consistent|evidence|rule out|suspected|repeat|secondary)\b")
_LEAD = r"(?:v[1-6]|av[rlf]|i{1,3}|(?<=[,\s-])[1-6](?![\d.:]))"
_LEADS = rf"{_LEAD}\b(?:\s*(?:[,&+/-]|\band\b|\bund\b|\boch\b|\bto\b|\bbis\b)+\s*{_LEAD}\b)*"
_LEADS_AFTER = re.compile(rf"^[\s,(]*(?:(?:[^.;:\d]{{0,30}}?\b)?in )?(?:leads? )?(?P<list>{_LEADS})(?![\w:])")
_LEAD_TOKEN = re.compile(rf"(?P<range>-|\bto\b|\bbis\b)?\s*(?P<lead>{_LEAD})\b")
# What may stand after a comma without being a statement of its own.
_CONTINUES = re.compile(
    rf"(?:{_LEAD}\b(?!\.v)|[1-6]\b|[+&]|(?:and|or|but|this|these|old|recent|age|with|oder|eller|alder|ålder|lad and)\b"
    r"|consider|suggest|consistent|cannot|prob\w*|possibl\w*|likely|acute|widespread|diffuse|global|wahrscheinlich"
    r"|sannolikt|mobitz|complete|varying|vent\b|a-noncapt|interpretation|right access|left acces|early transition"
    r"|late transition|nondiagnostic|unifocal|extremity|precordial|assumed|no further|t-u\b|irregular rate"
    rf"|{_AREA}\b.{{0,4}}ischemia|{_AREA}\b[^,]{{0,30}}\b(?:lds|leads?)\b)",
    re.IGNORECASE,
)
# A full stop that ends an abbreviation ("I.V.", "neg. T", "Intraventr. Block") or stands in a number ends nothing.
_ABBREVIATIONS = (r"\bneg", r"\bpath", r"ventr", r"\bant", r"\binf", r"mögl", r"krit", r"i\.v")
_ABBREVIATED = "".join(f"(?<!{word})" for word in _ABBREVIATIONS)
_BREAK = re.compile(rf"[\n;]|{_ABBREVIATED}\.(?=\s|$|[a-z*.-])(?!v\.)", re.IGNORECASE)


def fold(text: str) -> str:
    """Return `text` in the spelling the rules see: lower case, umlauts spelt out, one spelling per term."""
    folded = text.lower().translate(_UMLAUTS).replace("*", " ").replace("--", " ")
    folded = " ".join(folded.split())
    for pattern, new in rule_book().substitutions:
        folded = pattern.sub(new, folded)
    return folded


def split_report(text: str) -> list[str]:
    """Split a report into its statements.

    Full stops, semicolons and line ends separate statements; so does a comma, unless what follows only qualifies what
    went before ("ST elevation, consider inferior injury"; "in I, aVL, V5"). A statement that begins with "with" is
    joined to the one before.

    Args:
        text: the report; lines separated by line ends, full stops or commas.

    Returns:
        The statements in order, without surrounding white space and full stops.
    """
    statements: list[str] = []
    for sentence in _BREAK.split(text):
        for index, part in enumerate(sentence.split(",")):
            clause = part.strip(" \t.")
            if not clause:
                continue
            if statements and index > 0 and _CONTINUES.match(clause):
                statements[-1] += "," + part.rstrip(" \t.")
            elif statements and clause[:5].lower() == "with ":
                statements[-1] += " " + clause
            else:
                statements.append(clause)
    return statements


def _areas_of_leads(leads: list[str]) -> str:
    """Return the areas of which at least two leads are named, e.g. "IL"."""
    groups = rule_book().area_leads
    return "".join(area for area, members in groups.items() if len(members.intersection(leads)) >= 2)


def _named_leads(text: str) -> list[str]:
    """Return the leads at the beginning of `text`, canonical; "v4-6" and "v4,5,6" are understood."""
    match = _LEADS_AFTER.match(text)
    leads: list[str] = []
    for token in _LEAD_TOKEN.finditer(match["list"]) if match else ():
        name = token["lead"] if token["lead"][0] in "aiv" else f"v{token['lead']}"
        lead = canonical_lead(name)
        if lead is None:
            continue
        if token["range"] and leads and leads[-1][0] == lead[0] == "V":
            leads.extend(LEADS[LEADS.index(leads[-1]) + 1 : LEADS.index(lead)])
        leads.append(lead)
    return leads


def _place_of(text: str, start: int, end: int) -> str:
    """Return the territory words that belong to the finding at text[start:end], or ""."""
    match = _PLACE_BEFORE.search(text, 0, start)
    match = match or _PLACE_AFTER.match(text[end:]) or _PLACE_LAST.search(text, end)
    if match:
        return match[1]
    earlier = [found for found in _PLACE_ANY.finditer(text, 0, start) if start - found.end() <= 70]
    if earlier and _LINK.search(text, earlier[-1].end(), start):
        return earlier[-1][0]
    return ""


def _look_up(kind: str, place: str) -> tuple[str, ...]:
    """Return the findings of table `kind` for territory words, the whole combination first."""
    book = rule_book()
    words = [book.areas[word] for word in re.findall(_AREA, place)]
    table = book.places[kind]
    whole = "".join(sorted(set("".join(words))))
    if whole in table:
        return table[whole]
    return tuple(finding for word in words for finding in table.get(word, ()))


def _local(rule: Rule, text: str, start: int, end: int) -> Iterator[str]:
    """Yield the territory and lead findings of one match."""
    leads = _named_leads(text[end:]) if rule.leads else []
    yield from (f"{rule.leads}@{lead}" for lead in leads)
    if not rule.kind:
        return
    place = "" if leads else _place_of(text, start, end)
    if place:
        yield from _look_up(rule.kind, place)
    for area in _areas_of_leads(leads):
        yield from rule_book().places[rule.kind].get(area, ())


def _assert_match(rule: Rule, text: str, start: int, end: int) -> Iterator[Assertion]:
    cues = rule_book().cues
    before, after = text[:start], text[end:]
    # The words inside the match count too: "possible atrial flutter" may be one pattern.
    hedged = bool(
        cues["hedged_before"].search(before)
        or cues["hedged_before"].search(text[start:end])
        or cues["hedged_after"].match(after)
    )
    present = not (cues["negated_before"].search(before) or cues["negated_after"].match(after))
    for finding in rule.find:
        yield Assertion(finding, present, hedged)
    for finding in rule.hedge:
        yield Assertion(finding, present, True)
    for finding in rule.absent:
        yield Assertion(finding, False, False)
    for finding in _local(rule, text, start, end):
        yield Assertion(finding, present, hedged)


def _with_parents(found: set[Assertion]) -> frozenset[Assertion]:
    """Add the parents of what is present; of several assertions on one finding keep the most positive, then surest."""
    every = set(found)
    for assertion in found:
        if assertion.present:
            every |= {Assertion(parent, True, assertion.hedged) for parent in PARENTS.get(assertion.finding, ())}
    best: dict[str, Assertion] = {}
    for assertion in sorted(every, key=lambda item: (item.present, not item.hedged)):
        best[assertion.finding] = assertion
    return frozenset(best.values())


@functools.lru_cache(maxsize=65536)
def tag_statement(text: str) -> frozenset[Assertion]:
    """Return what one statement or clause of a report asserts, parents included.

    Args:
        text: one statement as `split_report` gives it; a whole report works too, but then a territory may be tied to
            the wrong finding.

    Returns:
        At most one assertion per finding; empty where nothing is recognised.
    """
    folded = fold(text)
    found: set[Assertion] = set()
    for match in rule_book().codes.finditer(folded):
        code = Rule(match.re, find=(match[1].rstrip("_").upper(),))
        found.update(_assert_match(code, folded, match.start(), match.end()))
    left = folded
    for rule in rule_book().rules:
        if rule.unless and rule.unless.search(folded):
            continue
        for match in rule.pattern.finditer(left):
            found.update(_assert_match(rule, folded, match.start(), match.end()))
            if not rule.keep:
                left = left[: match.start()] + "\0" * (match.end() - match.start()) + left[match.end() :]
    return _with_parents(found)


def tag_report(text: str) -> dict[str, bool]:
    """Return what a whole report says: finding -> present (hedged or not), or False where it is only denied.

    Args:
        text: the report, see `split_report`.

    Returns:
        The findings named, sorted; findings not named are missing, which is not the same as absent.
    """
    said: dict[str, bool] = {}
    for statement in split_report(text):
        for assertion in tag_statement(statement):
            said[assertion.finding] = said.get(assertion.finding, False) or assertion.present
    return dict(sorted(said.items()))


def is_quality_remark(text: str) -> bool:
    """Tell whether a statement speaks about the recording (noise, missing or reversed leads), not about the heart."""
    return bool(rule_book().remarks["quality"].search(fold(text)))


def is_remark(text: str) -> bool:
    """Tell whether a statement is known to say nothing about any finding (administrative, quality, qualifying)."""
    if any(assertion.present for assertion in tag_statement(text)):
        return False
    return is_quality_remark(text) or bool(rule_book().remarks["administrative"].search(fold(text)))
