"""A fused model goes the whole road: quantized, saved, loaded, run beside the original."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.models import ModelHandle, open_model
from workbench.quantizers.runs.fused_plan import plan_for_fused
from workbench.recipe import LayerPlan

TEXT = wb.text("calibration")
PROMPT = "One day a small dog saw a red ball in the garden."


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models[request.param])


def test_a_hadamard_is_left_online_where_none_could_be_fused(model: ModelHandle) -> None:
    recipe = wb.recipe("btc")
    assert plan_for_fused(model, recipe) == LayerPlan.uniform(recipe)
    plan = plan_for_fused(wb.fuse(model), recipe)
    names = {name: plan.recipe_for(name).transform.name for name in model.layer_names}
    assert {name.rpartition(".")[2] for name, transform in names.items() if transform == "hadamard"} == {"down_proj"}
    heads = plan_for_fused(wb.fuse(model, residual=False), recipe)
    assert heads.recipe_for("model.layers.0.self_attn.o_proj") == recipe
    assert heads.recipe_for("model.layers.0.mlp.up_proj").transform.name == "hadamard"
    turned = wb.recipe("btc", transform="hadamard")
    assert plan_for_fused(wb.fuse(model), turned) == LayerPlan.uniform(turned), "what is asked for is done"


@pytest.mark.parametrize("layers", ["*", "*.mlp.*"], ids=["all", "some"])
def test_saved_from_the_original_it_runs_as_the_fused_model_does(model: ModelHandle, layers: str, tmp_path: Path) -> None:
    """Eight bits hardly change a model, so its logits are the original's; layers that stay are stored fused too."""
    fused = wb.fuse(model)
    made = wb.quantize_model(fused, wb.recipe("rtn", bits=8, group=32), layers=layers)
    again = wb.load(wb.save(made, tmp_path / "out"))
    assert again.quantized.fused == made.fused == {"seed": 0, "residual": True, "online": ["down_proj"]}
    ids = again.encode(PROMPT)
    found, original = again.logits(ids), model.language_model().logits(ids)
    assert float((found - original).norm() / original.norm()) < 0.03
    for other in (build_packed_copy(model, made.layers, made.changed_tensors), build_packed_copy(fused, made.layers)):
        torch.testing.assert_close(other.logits(ids), found, rtol=1e-4, atol=1e-4 * float(found.abs().max()))
    assert not torch.allclose(build_packed_copy(model, made.layers).logits(ids), found, rtol=0.1), (
        "without what was changed it is another"
    )


def test_the_ledger_has_the_head_that_is_stored_apart(builtin: ModelHandle, tmp_path: Path) -> None:
    recipe = wb.recipe("rtn", bits=2, group=64)
    plain = wb.load(wb.save(wb.quantize_model(builtin, recipe), tmp_path / "plain"))
    fused = wb.fuse(builtin)
    turned = wb.load(wb.save(wb.quantize_model(fused, recipe), tmp_path / "fused"))
    heads = [entry for entry in turned.file_ledger.entries if entry.item == "lm_head.weight"]
    assert [entry.bits for entry in heads] == [8 * fused.untied_bytes]
    signs = sum(entry.bits for entry in turned.ledger.entries if "signs" in entry.item) / 8
    assert turned.bytes - plain.bytes == pytest.approx(fused.untied_bytes + signs, abs=2048)  # names in the header


def test_in_sequence_the_original_side_stays_the_original(model: ModelHandle) -> None:
    """With nothing quantized away the repaired aims are the weights, in the fused basis."""
    fused = wb.fuse(model)
    made = wb.quantize_model(fused, wb.recipe("gptq", bits=8, group=32), text=TEXT, tokens=200)
    ids = model.encode(PROMPT)
    found, original = build_packed_copy(fused, made.layers).logits(ids), model.language_model().logits(ids)
    assert float((found - original).norm() / original.norm()) < 0.03
