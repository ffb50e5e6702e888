"""The vLLM provider with a real engine and a tiny random model; skipped where vLLM is not installed."""

import importlib.util
import json
from pathlib import Path

import pytest

from fgclep.enrichment.providers.base import Sampling
from fgclep.enrichment.run import run_enrichment
from fgclep.enrichment.store import EnrichmentStore
from fgclep.errors import NotSetUpError

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed (the vllm extra)", allow_module_level=True)

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
REPORTS = {"1": "sinus rhythm. low qrs voltage", "2": "atrial fibrillation", "3": "left bundle branch block"}


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    out = tmp_path_factory.mktemp("llm")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(out)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=4096, **sizes, **ids)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def engine(tiny_llm: Path):
    from fgclep.enrichment.providers.vllm_engine import VllmEngine

    settings = {"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 2048}
    return VllmEngine(str(tiny_llm), Sampling(max_tokens=48), settings)


def test_a_run_completes_and_what_the_random_model_says_is_counted(engine, tmp_path: Path) -> None:
    store = EnrichmentStore(tmp_path / "e.sqlite", create=True)
    tally = run_enrichment(store, REPORTS, engine)
    assert tally.done == 3
    (run,) = store.runs()
    assert run.output_tokens > 0
    assert run.prompt_tokens > 3 * 500  # the instructions, byte by byte
    assert sum(run.problems.values()) + len(store.features_by_hash(run.id)) == 3
    store.close()


def test_decoding_is_guided_by_the_schema(engine) -> None:
    for reply in engine.answer(list(REPORTS.values())):
        assert reply is not None
        start = "".join(reply.text.split())[:13]
        assert '{"features":['.startswith(start) or start.startswith('{"features":[')
        if not reply.cut:
            assert isinstance(json.loads(reply.text)["features"], list)


def test_a_report_that_does_not_fit_stays_unanswered_alone(engine) -> None:
    replies = engine.answer(["sinus rhythm", "x" * 2400, "atrial fibrillation"])
    assert [reply is not None for reply in replies] == [True, False, True]
    assert engine.failure


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    from fgclep.enrichment.providers.vllm_engine import VllmEngine

    with pytest.raises(NotSetUpError, match="finds no model"):
        VllmEngine(str(tmp_path / "nowhere"), Sampling(), {})
