"""Whether a model was trained on the very data set it is measured on, as its card says."""

import re

from fgclep.pretrained import resolve_model

_NAMES = {"ptb-xl": "PTB-XL", "cpsc2018": "CPSC2018", "csn": "Chapman", "synthetic": "synthetic"}
_TRAINED_ON = re.compile(r"^- \*\*Trained on\*\*:(.*?)(?=^- \*\*|^#|\Z)", re.DOTALL | re.MULTILINE)


def trained_in_domain(spec: str, kind: str) -> bool | None:
    """Tell whether the card of a model names a data set among those it was trained on.

    Args:
        spec: the model, as `open_encoder` takes it. A `random:` one was trained on nothing.
        kind: the data set (`Dataset.kind`), or `synthetic` for ECGs of fgclep's own generator.

    Returns:
        None where nobody says: a foreign checkpoint, or a bundle without such a line on its card.

    Raises:
        NotSetUpError: if the spec names a bundle that does not exist.
    """
    scheme, colon, _ = spec.partition(":")
    if colon:
        return False if scheme == "random" else None
    card = resolve_model(spec) / "README.md"
    found = _TRAINED_ON.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    return None if found is None else _NAMES[kind].casefold() in found[1].casefold()
