"""Fusing rewrites the weights and keeps the function, in every family that it knows; others are refused with a reason."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.errors import ModelError
from workbench.kernels.formats.transforms import hadamard
from workbench.models import FusedModel, ModelHandle, architecture, open_model
from workbench.models.fused import draw_signs, rotate_heads

FUSIBLE = ["llama", "mistral", "qwen2", "qwen3"]
IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module", params=FUSIBLE)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models[request.param])


def logits(module: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return module(IDS).logits


def in_double(model: ModelHandle) -> torch.nn.Module:
    """The model with every tensor computed and held in float64."""
    module: Any = architecture.build_split_module(model.config)
    names = [*module.state_dict()]
    tensors = {n: model.tensor(n, torch.float64) if isinstance(model, FusedModel) else model.tensor(n).double() for n in names}
    module.load_state_dict(tensors, assign=True)
    for name, norm in [*module.named_modules()]:
        if name.endswith("norm"):  # transformers' own computes in float32
            exact = torch.nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon)
            exact.weight = norm.weight
            module.set_submodule(name, exact)
    return module.double()


@pytest.mark.parametrize("residual", [True, False], ids=["stream", "heads"])
def test_the_logits_stay(model: ModelHandle, residual: bool) -> None:
    before, after = logits(model.module), logits(wb.fuse(model, seed=3, residual=residual).module)
    assert float((after - before).norm() / before.norm()) < 1e-5
    fused = wb.fuse(model, seed=3, residual=residual)
    assert fused.changed_tensors(model.layer_names) or not residual
    assert not torch.allclose(fused.weight(model.layer_names[2]), model.weight(model.layer_names[2]))


@pytest.mark.parametrize("residual", [True, False], ids=["stream", "heads"])
def test_the_logits_stay_to_the_last_digits_of_float64(model: ModelHandle, residual: bool) -> None:
    before, after = logits(in_double(model)), logits(in_double(wb.fuse(model, residual=residual)))
    assert float((after - before).norm() / before.norm()) < 1e-10


def test_a_weight_is_what_the_layout_says(model: ModelHandle) -> None:
    fused, block = wb.fuse(model, seed=5), "model.layers.1"
    gain = model.tensor(f"{block}.input_layernorm.weight").double()
    stream, head = draw_signs(64, 5), draw_signs(16, 5 + 1 + 1)
    v, o = (model.weight(f"{block}.self_attn.{name}_proj").double() for name in "vo")
    expected = rotate_heads(hadamard(v * gain, stream).mT, head).mT
    torch.testing.assert_close(fused.weight(f"{block}.self_attn.v_proj").double(), expected, rtol=1e-5, atol=1e-6)
    expected = hadamard(rotate_heads(o, head).mT, stream).mT
    torch.testing.assert_close(fused.weight(f"{block}.self_attn.o_proj").double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(fused.tensor(f"{block}.input_layernorm.weight"), torch.ones(64))
    assert fused.weight(f"{block}.mlp.gate_proj").dtype == torch.float32


def test_a_tied_head_is_stored_apart_and_its_bytes_are_said(builtin: ModelHandle) -> None:
    fused = wb.fuse(builtin)
    head = fused.other_tensors(fused.layer_names)["lm_head.weight"]
    assert fused.untied_bytes == head.nbytes == 512 * 256 * 2
    assert f"{head.nbytes:,} bytes more" in repr(fused)
    kept = wb.fuse(builtin, residual=False)
    assert kept.untied_bytes == 0
    assert "lm_head.weight" not in kept.other_tensors(kept.layer_names)
    assert "bytes" not in repr(kept)


def test_a_head_that_is_apart_is_no_reason_for_advice(
    builtin: ModelHandle, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    assert wb.fuse(builtin).module.get_parameter("lm_head.weight") is not None
    assert capfd.readouterr().err == ""
    assert caplog.text == ""


def test_its_code_makes_it_again(builtin: ModelHandle) -> None:
    fused = wb.fuse(builtin, seed=4, residual=False)
    assert eval(fused.code(), {"wb": wb}).fingerprint == fused.fingerprint


def test_another_seed_is_another_model(builtin: ModelHandle) -> None:
    prints = [builtin.fingerprint, *(wb.fuse(builtin, seed=s, residual=r).fingerprint for s in (0, 1) for r in (True, False))]
    assert len(set(prints)) == 5
    assert wb.fuse(builtin, seed=1).fingerprint == wb.fuse(builtin, seed=1).fingerprint


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gemma", r"GemmaRMSNorm\) is not x / rms"),
        ("gemma3", "model.layers.0 has input_layernorm, mlp, post_attention_layernorm, post_feedforward"),
        ("opt", "it has no model.embed_tokens"),
        ("gpt2", "it has no transformer.embed_tokens"),
        ("bert", "it has no bert.embed_tokens"),
    ],
)
def test_other_shapes_are_refused_with_a_reason(tiny_models: dict[str, Path], family: str, why: str) -> None:
    with pytest.raises(ModelError, match=rf"cannot be fused: .*{why}.*only models can be fused whose blocks are RMSNorm"):
        wb.fuse(open_model(tiny_models[family]))
