"""Decoder against transformers' own forward pass: logits, prompts in pieces, exchanged layers, and what it refuses."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import workbench as wb
from workbench.errors import ModelError
from workbench.models import decoder as module
from workbench.models.decoder import Decoder, describe_refusal
from workbench.models.language_model import LanguageModel, Reading

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 700,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[type[PreTrainedModel], PretrainedConfig]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "biases": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama-3": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA_3)),
    "wide-heads": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=16)),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=8)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(*MODELS[request.param])


def build(kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """A random model whose norms and biases matter."""
    torch.manual_seed(0)
    built = kind(config).eval().requires_grad_(False)
    for parameter in built.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.15))
    return built


def full_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids).logits[0]


@torch.inference_mode()
def read_pieces(model: PreTrainedModel, ids: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    decoder = Decoder(model)
    for piece in ids.split(sizes, 1):
        yield decoder.read(piece)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 1, 1, 20, 1, 10]], ids=["at-once", "one-by-one", "pieces"])
def test_logits_are_those_of_the_model_itself(model: PreTrainedModel, sizes: list[int]) -> None:
    ids = torch.randint(0, 200, (1, 40), generator=torch.Generator().manual_seed(1))
    expected = full_logits(model, ids)
    ends = torch.tensor(sizes).cumsum(0) - 1
    read = torch.stack(list(read_pieces(model, ids, sizes)))
    torch.testing.assert_close(read, expected[ends], atol=2e-5 * float(expected.std()), rtol=1e-5)


def test_a_text_may_outgrow_the_room_for_it(model: PreTrainedModel) -> None:
    ids = torch.randint(0, 200, (1, 530), generator=torch.Generator().manual_seed(2))
    *_, last = read_pieces(model, ids, [250, *[1] * 10, 265, *[1] * 5])
    expected = full_logits(model, ids)[-1]
    torch.testing.assert_close(last, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)


def test_all_threads_attend_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.kernels.jit import threads

    llama = build(*MODELS["llama"])
    ids = torch.randint(0, 200, (1, 30), generator=torch.Generator().manual_seed(3))
    alone = torch.stack(list(read_pieces(llama, ids, [1] * 30)))
    monkeypatch.setattr(threads, "needs_threads", lambda weights: True)
    torch.testing.assert_close(torch.stack(list(read_pieces(llama, ids, [1] * 30))), alone, atol=1e-5, rtol=1e-5)


def test_packed_layers_run_in_it(builtin: wb.models.ModelHandle) -> None:
    packed = wb.pack_model(wb.quantize_model(builtin, wb.recipe("binary")), builtin)
    ids = packed.encode("Once upon a time there was a")
    expected = full_logits(packed.module, ids)[-1]
    *_, last = read_pieces(packed.module, ids, [3, *[1] * (ids.shape[1] - 3)])
    torch.testing.assert_close(last, expected, atol=2e-3 * float(expected.std()), rtol=0)
    assert packed.decoder_refusal is None


def test_an_exchanged_layer_counts_from_the_next_token_on() -> None:
    llama = build(*MODELS["llama"])
    ids = torch.randint(0, 200, (1, 9), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        decoder = Decoder(llama)
        decoder.read(ids[:, :-1])
        exchanged = torch.nn.Linear(80, 48, bias=False)
        llama.set_submodule("model.layers.2.mlp.down_proj", exchanged)
        read = decoder.read(ids[:, -1:])
    expected = full_logits(llama, ids)[-1]  # earlier tokens meet the last block in its keys and values alone, which come before
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)


def test_generation_is_that_of_transformers(builtin: wb.models.ModelHandle) -> None:
    lm = builtin.language_model()
    ids = lm.encode("Once upon a time")
    expected = lm.module.generate(ids, max_new_tokens=60, do_sample=False)[0, ids.shape[1] :].tolist()  # type: ignore[operator]
    assert list(lm.new_tokens(ids, 60)) == [token for token in expected if token not in lm.stops]
    assert lm.decoder_refusal is None


REFUSED = {
    "window": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=8), "slides over a window"),
    "activation": (LlamaForCausalLM, LlamaConfig(**SIZES, hidden_act="gelu"), "'gelu', not silu"),
    "rotary": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
        "type 'dynamic'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_is_said_and_the_model_reads_itself(case: str) -> None:
    kind, config, why = REFUSED[case]
    refused = build(kind, config)
    assert why in str(describe_refusal(refused))
    ids = torch.randint(0, 200, (1, 20), generator=torch.Generator().manual_seed(5))
    reading = Reading(wrap(refused))
    logits = [reading.read(piece) for piece in ids.split([10, *[1] * 10], 1)][-1]
    torch.testing.assert_close(logits, full_logits(refused, ids)[-1], atol=1e-4, rtol=1e-4)


def wrap(built: PreTrainedModel) -> LanguageModel:
    tokenizer = AutoTokenizer.from_pretrained(wb.open_model("builtin").folder)
    return LanguageModel(built, tokenizer, "random")


def test_other_types_hooks_and_narrow_numbers_are_refused(tiny_models: dict[str, Any]) -> None:
    assert "has no decoder of its own here; those that have one are Llama" in str(
        describe_refusal(wb.open_model(tiny_models["gpt2"]).module)
    )
    llama = build(*MODELS["llama"])
    assert describe_refusal(llama) is None
    with_hook = llama.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    assert str(describe_refusal(llama)) == "something watches or replaces the forward pass of 'model.layers.1.mlp'."
    with_hook.remove()
    assert describe_refusal(llama) is None
    assert str(describe_refusal(llama.to(torch.bfloat16))) == "its modules compute in bfloat16, not in float32."


def test_a_hook_on_a_matrix_runs_and_is_no_reason_to_refuse() -> None:
    llama, seen = build(*MODELS["llama"]), []
    llama.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: seen.append(1))
    assert describe_refusal(llama) is None
    list(read_pieces(llama, torch.tensor([[5, 6]]), [1, 1]))
    assert seen == [1, 1]


def test_a_decoder_that_predicts_differently_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = wrap(build(LlamaForCausalLM, LlamaConfig(**{**SIZES, "intermediate_size": 112})))
    read = Decoder.read
    monkeypatch.setattr(module.Decoder, "read", lambda self, ids: read(self, ids).roll(1))
    assert lm.decoder_refusal == "its decoder here predicts differently."
    assert Reading(lm)._decoder is None


def test_a_model_that_overflows_is_named() -> None:
    llama = build(*MODELS["llama"])
    lm = wrap(llama)
    reading = Reading(lm)
    assert reading._decoder is not None
    llama.model.layers[1].mlp.up_proj.weight.fill_(1e38)
    with pytest.raises(ModelError, match="are not finite"):
        reading.read(torch.tensor([[5, 6, 7]]))
