"""LoRA adapters merged as they are read: the weights of peft's own merge, and anything but a plain LoRA refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

import workbench as wb
from tests.tiny_models import write_model
from workbench.errors import ModelError

IDS = torch.arange(3, 40)[None]
RANK, ALPHA = 4, 16
QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("llama", tmp_path_factory.mktemp("base"))


def write_adapter(folder: Path, base: Path, names: tuple[str, ...] = (QUERY, DOWN), **settings: object) -> dict[str, Tensor]:
    """A random adapter of some layers; its factors by the tensors' names."""
    folder.mkdir(exist_ok=True)
    facts = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(facts | settings))
    model, generator, tensors = wb.open_model(base), torch.Generator().manual_seed(0), {}
    for name in names:
        layer = model.layer(name)
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(RANK, layer.cols, generator=generator) / 8
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(layer.rows, RANK, generator=generator) / 8
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


def delta(tensors: dict[str, Tensor], name: str) -> Tensor:
    """B A of a layer."""
    a, b = (tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
    return b @ a


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, (ALPHA / RANK, ALPHA / RANK)),
        ({"use_rslora": True}, (ALPHA / 2, ALPHA / 2)),
        ({"alpha_pattern": {"q_proj": 2}}, (2 / RANK, ALPHA / RANK)),
        ({"init_lora_weights": "gaussian", "lora_dropout": 0.1, "target_modules": ["q_proj"]}, (ALPHA / RANK, ALPHA / RANK)),
    ],
    ids=["plain", "rank-stabilised", "pattern", "harmless"],
)
def test_weights_are_the_sum(base: Path, tmp_path: Path, settings: dict[str, object], scales: tuple[float, float]) -> None:
    tensors = write_adapter(tmp_path / "adapter", base, **settings)
    plain, adapted = wb.open_model(base), wb.open_model(base, adapter=tmp_path / "adapter")
    for name, scale in zip((QUERY, DOWN), scales, strict=True):
        assert_close(adapted.weight(name), plain.weight(name) + scale * delta(tensors, name))
    other = "model.layers.1.self_attn.q_proj"
    assert_close(adapted.weight(other), plain.weight(other), rtol=0, atol=0)
    assert adapted.fingerprint != plain.fingerprint


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks transformers for it
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("stabilised", [False, True])
def test_it_is_what_peft_merges(family: str, stabilised: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the library peft is not installed; it is only a reference")
    from transformers import AutoModelForCausalLM

    base = write_model(family, tmp_path / "base")
    targets = ["q_proj", "down_proj"] if family == "llama" else ["c_attn", "c_proj"]
    module = AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, use_rslora=stabilised, fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(module, settings)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 8)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().eval()
    model = wb.open_model(base, adapter=tmp_path / "adapter")
    for name in model.layer_names:
        expected = merged.get_parameter(f"{name}.weight").data
        assert_close(model.weight(name), model.layer(name).orient(expected))
    with torch.no_grad():
        assert_close(model.run(IDS).logits, merged(IDS).logits)


def test_its_source_opens_it_again(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "adapter", base)
    model = wb.open_model(str(base), adapter=tmp_path / "adapter")
    assert model.source == f"{base} + {tmp_path / 'adapter'}"
    for source in (model.source, model.location):
        assert wb.open_model(source).fingerprint == model.fingerprint
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    assert_close(wb.open_model(model.source).run(IDS).logits, model.run(IDS).logits)
    quantized = wb.quantize_model(model, wb.recipe("rtn", bits=8, group=32))
    assert wb.load(wb.save(quantized, tmp_path / "saved")).quantized.source == model.source


def test_an_adapter_in_the_folder_of_its_base_is_merged_without_a_warning(base: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(base, tmp_path / "both"))
    write_adapter(tmp_path / "adapter", base)
    for file in (tmp_path / "adapter").iterdir():
        shutil.copy(file, both)
    assert wb.open_model(both, adapter=both).weight(QUERY).shape == (64, 64)


REFUSED = {
    "dora": ({"use_dora": True}, "is DoRA, which also scales the columns; only a plain LoRA is merged here"),
    "biases": ({"bias": "all"}, "is a LoRA with biases"),
    "modules": ({"modules_to_save": ["lm_head"]}, r"with whole modules of its own \(modules_to_save\)"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "is a LoRA that began as pissa_niter_4"),
    "prefix": ({"peft_type": "PREFIX_TUNING"}, "is 'PREFIX_TUNING', not a LoRA"),
    "rank": ({"r": 8}, r"has factors \[64, 4\] and \[4, 64\] for .*, which is \[64, 64\] with rank 8"),
    "no-rank": ({"r": 0}, "says r 0; it must be a number from 1"),
    "no-alpha": ({"lora_alpha": None}, "says lora_alpha None; it must be a number"),
    "pattern": ({"alpha_pattern": {"(": 3}}, "holds a pattern that is none"),
}


@pytest.mark.parametrize(("settings", "sentence"), REFUSED.values(), ids=REFUSED)
def test_anything_but_a_plain_lora_is_refused(base: Path, tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    write_adapter(tmp_path / "adapter", base, **settings)
    with pytest.raises(ModelError, match=sentence) as caught:
        wb.open_model(base, adapter=tmp_path / "adapter")
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", base)
    with pytest.raises(ModelError, match=r"has factors .* give the base model that the adapter was trained"):
        wb.open_model("builtin", adapter=tmp_path / "adapter")


def test_damaged_factors_are_refused(base: Path, tmp_path: Path) -> None:
    tensors = write_adapter(tmp_path / "adapter", base)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    first = next(iter(tensors))
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    with pytest.raises(ModelError, match="holds one of the two factors"):
        wb.open_model(base, adapter=file.parent)
    save_file(tensors | {first: torch.full_like(tensors[first], torch.nan)}, file)
    with pytest.raises(ModelError, match="values of .* are NaN or infinite; the adapter is broken"):
        wb.open_model(base, adapter=file.parent).weight(QUERY)
    save_file(tensors | {"base_model.model.x.lora_embedding_A": torch.ones(4)}, file)
    with pytest.raises(ModelError, match="is no part of a plain LoRA"):
        wb.open_model(base, adapter=file.parent)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or incomplete"):
        wb.open_model(base, adapter=file.parent)
    with pytest.raises(ModelError, match="is no adapter that can be read: it needs adapter_config.json"):
        wb.open_model(base, adapter=tmp_path / "nothing")
    assert load_file(base / "model.safetensors")
