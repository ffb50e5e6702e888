"""Text towers: where they come from, and that a smaller vocabulary changes nothing that is said in it."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fgclep.errors import NotSetUpError, UsageError
from fgclep.models.text_towers import load_text_tower, prune_vocabulary, rest_frozen, trainable_parameters

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
# Words stand before the special tokens, so that dropping them changes the numbers of these.
VOCABULARY = ["the", "football", *SPECIAL, *LETTERS, "parliament", "sinus", "rhythm", "inverted", "##ion"]


def make_tower(post_processor: str) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """A random BERT whose tokenizer adds [CLS] and [SEP] in one of the two ways that tokenizer files know."""
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = (("[CLS]", VOCABULARY.index("[CLS]")), ("[SEP]", VOCABULARY.index("[SEP]")))
    backend.post_processor = (
        processors.BertProcessing(last, first)
        if post_processor == "bert"
        else processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[first, last])
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertModel(BertConfig(vocab_size=len(VOCABULARY), **sizes)).eval(), tokenizer


@torch.inference_mode()
def encode(tower: BertModel, tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    return tower(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state


@pytest.mark.parametrize("post_processor", ["template", "bert"])
def test_a_smaller_vocabulary_gives_the_same_vectors(post_processor: str) -> None:
    tower, tokenizer = make_tower(post_processor)
    before = {text: encode(tower, tokenizer, text) for text in ("inverted sinus rhythm", "brugada v1", "")}
    smaller = prune_vocabulary(tower, tokenizer, ["sinus rhythm", "inverted"], keep_frequent=0)
    vocabulary = smaller.get_vocab()
    assert {"sinus", "rhythm", "inverted", *SPECIAL} <= vocabulary.keys()
    assert not {"the", "football", "parliament", "##ion"} & vocabulary.keys()
    assert tower.config.vocab_size == tower.get_input_embeddings().num_embeddings == len(vocabulary)
    for text, vectors in before.items():
        assert torch.equal(encode(tower, smaller, text), vectors), text
    assert smaller.tokenize("the")[0] == "t"  # a dropped word is spelt out, never unknown


def test_the_first_pieces_of_the_vocabulary_can_be_kept() -> None:
    tower, tokenizer = make_tower("template")
    kept = prune_vocabulary(tower, tokenizer, [], keep_frequent=2).get_vocab().keys()
    assert {"the", "football"} <= kept
    assert not {"parliament", "sinus"} & kept


def test_a_tokenizer_of_another_kind_is_left_alone() -> None:
    tower, _ = make_tower("template")
    pairs = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token="a")
    assert prune_vocabulary(tower, tokenizer, ["ab"], keep_frequent=0) is tokenizer
    assert tower.get_input_embeddings().num_embeddings == tower.config.vocab_size == len(VOCABULARY)


@pytest.mark.parametrize("config", [None, "{}", "not json"])
def test_a_folder_without_a_model_is_named(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(NotSetUpError, match="cannot be loaded"):
        load_text_tower(str(tmp_path))


def test_frozen_blocks_and_embeddings_do_not_train() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    tower = BertModel(BertConfig(vocab_size=30, **sizes))
    trained = trainable_parameters(tower, frozen_blocks=2)
    named = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert named == {name for name, _ in tower.named_parameters() if name.startswith("encoder.layer.2.")}
    assert len(trained) == len(named)
    assert len(trainable_parameters(tower, frozen_blocks=0)) == len(list(tower.parameters()))
    assert all(parameter.requires_grad for parameter in tower.parameters())


def test_more_frozen_blocks_than_there_are_is_refused() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    with pytest.raises(UsageError, match="frozen_text_blocks is 9; the text tower has 3 blocks"):
        trainable_parameters(BertModel(BertConfig(vocab_size=30, **sizes)), frozen_blocks=9)


def test_frozen_blocks_work_without_dropout_while_the_others_train() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    tower = BertModel(BertConfig(vocab_size=30, hidden_dropout_prob=0.5, **sizes))
    trainable_parameters(tower, frozen_blocks=2)
    tower.train()
    rest_frozen(tower)
    tokens = torch.arange(10)[None]
    with_dropout = (tower(tokens, output_hidden_states=True).hidden_states for _ in range(2))
    same = [torch.equal(a, b) for a, b in zip(*with_dropout, strict=True)]
    assert same == [True, True, True, False]  # the embeddings' and each block's output
