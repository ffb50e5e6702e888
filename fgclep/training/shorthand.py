"""Write a text as a hurried hand would: ward abbreviations, other spellings, dropped words, a slip of the finger.

Wordings are written by authors who spell things out; people who search do not. The abbreviations are those of clinical
notes in general, word by word, so a text tower that has seen "lat" for "lateral" in one finding can read it in another.
"""

import random
import re

_SHORT = {
    "abnormal": ("abn", "abnl"), "abnormality": ("abn", "abnl"), "abnormalities": ("abn",), "acute": ("ac",),
    "amplitude": ("ampl",), "and": ("&", "+"), "anterior": ("ant",), "anterolateral": ("anterolat", "ant-lat"),
    "anteroseptal": ("anterosept", "ant-sept"), "atrial": ("atr",), "atrioventricular": ("AV",),
    "beats": ("bts",), "block": ("blk",), "borderline": ("bdl", "borderl"), "bradycardia": ("brady",),
    "changes": ("chgs", "chg"), "complete": ("compl", "comp"), "complexes": ("cplx",), "conduction": ("cond",),
    "contraction": ("contr",), "degree": ("deg",), "delay": ("del",), "depolarization": ("depol",),
    "depressed": ("depr",), "depression": ("depr", "dep"), "deviation": ("dev",), "duration": ("dur",),
    "elevated": ("elev",), "elevation": ("elev",), "enlargement": ("enlgmt", "enlarg"), "evidence": ("evid",),
    "extrasystole": ("ES",), "extrasystoles": ("ES",), "fascicular": ("fasc",), "fibrillation": ("fib",),
    "first": ("1st",), "flutter": ("flut",), "frequent": ("freq",), "hypertrophy": ("hypertr", "hyp"),
    "incomplete": ("incompl", "inc"), "increased": ("incr",), "infarct": ("MI",), "infarction": ("MI", "inf"),
    "inferior": ("inf",), "inferolateral": ("inferolat",), "injury": ("inj",), "interval": ("int",),
    "intraventricular": ("IV", "intravent"), "inverted": ("inv",), "inversion": ("inv",), "inversions": ("inv",),
    "ischemia": ("isch", "ischaemia"), "ischaemia": ("isch", "ischemia"), "ischemic": ("isch", "ischaemic"),
    "lateral": ("lat",), "left": ("L", "lt"), "low": ("lo",), "morphology": ("morph",), "myocardial": ("myoc",),
    "negative": ("neg",), "nonspecific": ("nonspec", "non-specific"), "normal": ("nl", "norm"),
    "pacemaker": ("PM",), "pattern": ("patt",), "positive": ("pos",), "possible": ("poss",), "posterior": ("post",),
    "precordial": ("precord",), "premature": ("prem",), "probable": ("prob",), "prolongation": ("prolong",),
    "prolonged": ("prol",), "regular": ("reg",), "irregular": ("irreg",), "repolarization": ("repol",),
    "rhythm": ("rhy",), "right": ("R", "rt"), "second": ("2nd",), "segment": ("seg",), "septal": ("sept",),
    "supraventricular": ("SV", "supravent"), "tachycardia": ("tachy",), "third": ("3rd",), "ventricle": ("vent",),
    "ventricular": ("vent", "ventr"), "voltage": ("volt", "voltages"), "waves": ("wave", "w."), "with": ("w/",),
    "without": ("w/o",),
}  # fmt: skip
_MAY_GO = frozenset({"the", "a", "an", "of", "in", "on", "is", "are", "with", "wave", "waves", "pattern", "present"})
_WORD = re.compile(r"[A-Za-z]+")


def hurried(text: str, rng: random.Random) -> str:
    """Return the text as one of the ways of writing it in a hurry; often just as it is.

    Args:
        text: a wording.
        rng: source of randomness.
    """
    draw = rng.random()
    if draw < 0.2:
        return _abbreviated(text, rng)
    if draw < 0.27:
        return _without_small_words(text, rng)
    if draw < 0.31:
        return _slipped(text, rng)
    return text


def _abbreviated(text: str, rng: random.Random) -> str:
    share = rng.choice((0.4, 1.0))

    def short(match: re.Match[str]) -> str:
        options = _SHORT.get(match[0].lower())
        return rng.choice(options) if options and rng.random() < share else match[0]

    return _WORD.sub(short, text)


def _without_small_words(text: str, rng: random.Random) -> str:
    words = text.split()
    kept = [word for word in words if word.lower() not in _MAY_GO or rng.random() < 0.3]
    return " ".join(kept) if len(kept) > 1 else text


def _slipped(text: str, rng: random.Random) -> str:
    """Exchange two neighbouring letters inside one long word."""
    long = [match for match in _WORD.finditer(text) if len(match[0]) > 5]
    if not long:
        return text
    word = rng.choice(long)
    at = word.start() + rng.randrange(1, len(word[0]) - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
