"""config.json, weights and tokenizer that do not belong together, or are quantized already: the right answer or one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_models import SHAPE, write_model
from workbench.errors import ModelError
from workbench.models import open_model

WEIGHTS = "model.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj"
Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may change."""
    return Path(shutil.copytree(tiny_models["llama"], tmp_path / "llama"))


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def drop_field(folder: Path, name: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))


def edit_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


CONFIGS: dict[str, tuple[bytes, str]] = {
    "list": (b"[]", "is not a JSON object but a list"),
    "null": (b"null", "is not a JSON object but null"),
    "number": (b"64", "is not a JSON object but a number"),
    "empty": (b"", "config.json is empty"),
    "no-fields": (b"{}", "names no model_type, such as 'llama'"),
    "cut": (b'{"model_type": "lla', "is not JSON: Unterminated string"),
    "byte-order-mark": (b"\xef\xbb\xbf{}", "begins with a byte order mark; save it as UTF-8 without one"),
    "utf-16": ("{}".encode("utf-16"), r"is not UTF-8 text \(byte 0\)"),
    "latin-1": (b'{"model_type": "ll\xe4ma"}', r"is not UTF-8 text \(byte 18\)"),
    "nested": (b"[" * 100_000, "is 100,000 levels deep; at most 100 are read"),
}
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "size-string": ({"hidden_size": "64"}, r"field 'hidden_size': .* expected int, got str \(value: '64'\)"),
    "size-float": ({"vocab_size": 512.5}, r"field 'vocab_size': .* expected int, got float"),
    "size-zero": ({"num_attention_heads": 0}, "says num_attention_heads 0; it must be at least 1"),
    "size-negative": ({"hidden_size": -64}, "says hidden_size -64; it must be at least 1"),
    "no-blocks": ({"num_hidden_layers": 0}, "says num_hidden_layers 0; it must be at least 1"),
    "type-list": ({"model_type": ["llama"]}, r"says model_type \['llama'\]; it must be a name"),
    "classes-string": ({"architectures": "LlamaForCausalLM"}, "says architectures 'LlamaForCausalLM'; it must be a list"),
    "classes-numbers": ({"architectures": [1]}, r"says architectures \[1\]; it must be a list"),
    "quantized-string": ({"quantization_config": "gptq"}, "says quantization_config 'gptq'; it must be an object or null"),
    "quantized-list": ({"quantization_config": [1]}, r"says quantization_config \[1\]; it must be an object or null"),
    "quantized-unnamed": ({"quantization_config": {}}, r"is already quantized \(an unnamed method\)"),
    "quantized-inside": ({"text_config": {"quantization_config": {"quant_method": "quip"}}}, r"is already quantized \('quip'\)"),
    "compressed": ({"compression_config": {"format": "pack-quantized"}}, r"is already quantized \('pack-quantized'\)"),
}


@pytest.mark.parametrize(("content", "sentence"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_configuration_that_is_none(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, sentence)


@pytest.mark.parametrize(("fields", "sentence"), FIELDS.values(), ids=FIELDS.keys())
def test_a_field_that_cannot_be(folder: Path, fields: dict[str, Any], sentence: str) -> None:
    edit_config(folder, **fields)
    refused(folder, sentence)


def test_a_quantization_of_null_is_none(folder: Path) -> None:
    text = open_model(folder).generate("Once", tokens=5)
    edit_config(folder, quantization_config=None)
    assert open_model(folder).generate("Once", tokens=5) == text


def test_what_is_stored_decides_whether_a_model_is_quantized(folder: Path) -> None:
    """Programs that dequantize a model leave the configuration as it was."""
    text = open_model(folder).generate("Once", tokens=5)
    edit_config(folder, quantization_config={"quant_method": "mxfp4"})
    assert open_model(folder).generate("Once", tokens=5) == text


def float8(dtype: torch.dtype, scale: str = "") -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[f"{Q_PROJ}.weight"] = tensors[f"{Q_PROJ}.weight"].to(dtype)
        if scale:
            tensors[f"{Q_PROJ}.{scale}"] = torch.ones(1, 1)

    return change


def int8(tensors: Tensors) -> None:
    for name in [name for name in tensors if "mlp" in name]:
        tensors[name] = tensors[name].to(torch.int8)


def bitsandbytes8(tensors: Tensors) -> None:
    tensors[f"{Q_PROJ}.weight"] = tensors[f"{Q_PROJ}.weight"].to(torch.int8)
    tensors[f"{Q_PROJ}.SCB"] = torch.ones(64)


def bitsandbytes4(tensors: Tensors) -> None:
    tensors[f"{Q_PROJ}.weight"] = torch.zeros(2048, 1, dtype=torch.uint8)
    tensors[f"{Q_PROJ}.weight.absmax"] = torch.ones(64)
    tensors[f"{Q_PROJ}.weight.quant_state.bitsandbytes__nf4"] = torch.zeros(80, dtype=torch.uint8)


def gptq(tensors: Tensors) -> None:
    del tensors[f"{Q_PROJ}.weight"]
    tensors[f"{Q_PROJ}.qweight"] = torch.zeros(8, 64, dtype=torch.int32)
    tensors[f"{Q_PROJ}.qzeros"] = torch.zeros(1, 8, dtype=torch.int32)
    tensors[f"{Q_PROJ}.scales"] = torch.ones(1, 64)
    tensors[f"{Q_PROJ}.g_idx"] = torch.zeros(64, dtype=torch.int32)


def blocks_and_scales(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.experts.gate_up_proj_blocks"] = torch.zeros(2, 8, 2, 16, dtype=torch.uint8)
    tensors["model.layers.0.mlp.experts.gate_up_proj_scales"] = torch.zeros(2, 8, 2, dtype=torch.uint8)


def mlx(tensors: Tensors) -> None:
    tensors[f"{Q_PROJ}.weight"] = torch.zeros(64, 8, dtype=torch.uint32)
    tensors[f"{Q_PROJ}.scales"] = tensors[f"{Q_PROJ}.biases"] = torch.ones(64, 1)
    tensors[f"{Q_PROJ}.biases"] = torch.ones(64, 1)


QUANTIZED: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "float8": (float8(torch.float8_e4m3fn), f"stores 1 weights as float8_e4m3fn, first '{Q_PROJ}.weight'"),
    "float8-scale": (float8(torch.float8_e5m2, "weight_scale_inv"), f"stores 1 weights as float8_e5m2, first '{Q_PROJ}.weight'"),
    "int8": (int8, "stores 6 weights as int8, first 'model.layers.0.mlp.down_proj.weight'"),
    "bitsandbytes-8": (bitsandbytes8, f"stores 1 weights as int8, first '{Q_PROJ}.weight'"),
    "bitsandbytes-4": (bitsandbytes4, f"stores 1 weights as uint8, first '{Q_PROJ}.weight'"),
    "gptq": (gptq, f"stores 1 weights as int32, first '{Q_PROJ}.qweight'"),
    "mxfp4": (blocks_and_scales, "stores 1 weights as uint8, first 'model.layers.0.mlp.experts.gate_up_proj_blocks'"),
    "mlx": (mlx, f"stores 1 weights as uint32, first '{Q_PROJ}.weight'"),
}


@pytest.mark.parametrize(("change", "sentence"), QUANTIZED.values(), ids=QUANTIZED.keys())
def test_weights_that_need_scales_are_never_read_as_numbers(
    folder: Path, change: Callable[[Tensors], None], sentence: str
) -> None:
    edit_tensors(folder, change)
    refused(folder, f"{sentence}: it is already quantized, and its codes are meaningless without their scales")


def test_integers_that_are_no_weights_do_no_harm(folder: Path) -> None:
    edit_tensors(
        folder,
        lambda tensors: tensors.update(
            {
                "model.embeddings.position_ids": torch.arange(128)[None],
                "model.layers.0.mlp.token_idx_to_expert": torch.zeros(512, 2, dtype=torch.int64),
                "model.layers.0.self_attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
                "model.norm.num_batches_tracked": torch.tensor(3),
            }
        ),
    )
    assert open_model(folder).generate("Once", tokens=1)


def test_a_buffer_beside_a_scale_is_no_weight(tmp_path: Path) -> None:
    """BERT's position_ids, an integer matrix, beside something that is called a scale."""
    folder = write_model("bert", tmp_path / "bert")
    extra = {"embeddings.position_ids": torch.arange(128)[None], "embeddings.logit_scale": torch.ones(1)}
    edit_tensors(folder, lambda tensors: tensors.update(extra))
    assert open_model(folder).layer_names


@pytest.mark.parametrize("blocks", [3, 100_000])
def test_more_blocks_than_weights(folder: Path, blocks: int) -> None:
    edit_config(folder, num_hidden_layers=blocks)
    refused(folder, rf"asks for {blocks} blocks \(num_hidden_layers\), but the weights beside it hold 2")


def test_more_blocks_than_weights_without_a_class(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=100_000, architectures=None)
    refused(folder, r"asks for 100000 blocks \(num_hidden_layers\), but the weights beside it hold 2")


def test_fewer_blocks_than_weights(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    with pytest.warns(UserWarning, match=r"asks for 1 blocks \(num_hidden_layers\), but .* hold 2; the last 1 are left out"):
        model = open_model(folder)
    assert len(model.layer_names) == 7


def write_mtp(folder: Path, blocks: int) -> None:
    """A tiny DeepSeek V3 with `blocks` blocks behind its two that predict further tokens, as its publisher stores them."""
    import transformers as t

    shape = {**SHAPE, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    config = t.DeepseekV3Config(
        **{key: value for key, value in shape.items() if key != "head_dim"},
        first_k_dense_replace=2,
        moe_intermediate_size=32,
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        num_nextn_predict_layers=1,
    )
    t.DeepseekV3ForCausalLM(config).save_pretrained(folder)
    extra = {f"model.layers.{2 + index}.eh_proj.weight": torch.zeros(64, 128) for index in range(blocks)}
    edit_tensors(folder, lambda tensors: tensors.update(extra))


def test_a_block_that_predicts_further_tokens_is_none_too_many(tmp_path: Path) -> None:
    write_mtp(tmp_path, blocks=1)
    assert {row.block for row in open_model(tmp_path).layers().itertuples()} == {0, 1}


def test_a_second_block_behind_the_one_that_predicts_is_one_too_many(tmp_path: Path) -> None:
    write_mtp(tmp_path, blocks=2)
    with pytest.warns(UserWarning, match=r"asks for 2 blocks .* hold 4; the last 1 are left out"):
        open_model(tmp_path)


def test_a_block_that_its_class_leaves_out_is_none_too_many(tmp_path: Path) -> None:
    write_mtp(tmp_path, blocks=0)
    edit_config(tmp_path, num_nextn_predict_layers=0)
    edit_tensors(tmp_path, lambda tensors: tensors.update({"model.layers.61.eh_proj.weight": torch.zeros(64, 128)}))
    assert {row.block for row in open_model(tmp_path).layers().itertuples()} == {0, 1}


def test_blocks_that_run_several_times_are_stored_once(tmp_path: Path) -> None:
    import transformers as t

    config = t.AlbertConfig(
        vocab_size=512,
        embedding_size=16,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_hidden_groups=1,
    )
    t.AlbertModel(config).save_pretrained(tmp_path)
    assert open_model(tmp_path).layer_names


@pytest.mark.parametrize("classes", [None, [], ["LLaMAForCausalLM"]], ids=["null", "empty", "unknown"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_a_decoder_without_a_class_writes_text(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, classes: list[str] | None
) -> None:
    folder = Path(shutil.copytree(tiny_models[family], tmp_path / family))
    edit_config(folder, architectures=classes)
    assert open_model(folder).generate("Once", tokens=5) == open_model(tiny_models[family]).generate("Once", tokens=5)


def test_a_decoder_without_a_class_field_is_packed_and_loaded(folder: Path, tmp_path: Path) -> None:
    import workbench as wb

    drop_field(folder, "architectures")
    model = open_model(folder)
    wb.save(wb.quantize_model(model, wb.recipe("rtn", bits=2, group=32), layers="*0.mlp*"), tmp_path / "saved", model)
    assert wb.load(tmp_path / "saved").generate("Once", tokens=2)


def test_a_decoder_without_a_class_and_a_head_is_the_bare_model(folder: Path) -> None:
    drop_field(folder, "architectures")
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    model = open_model(folder)
    assert len(model.layer_names) == 14
    with pytest.raises(ModelError, match=r"\(LlamaModel\) is not a causal language model"):
        model.language_model()


@pytest.mark.parametrize("masked", [False, True], ids=["bare", "masked"])
def test_an_encoder_without_a_class_stays_an_encoder(tmp_path: Path, masked: bool) -> None:
    import transformers as t

    folder = write_model("bert", tmp_path / "bert")
    if masked:
        config = t.BertConfig.from_pretrained(folder)
        t.BertForMaskedLM(config).save_pretrained(folder)
    drop_field(folder, "architectures")
    model = open_model(folder)
    assert not model.writes_text
    assert len(model.layer_names) == 12


def test_blocks_in_groups_are_counted_by_groups(tmp_path: Path) -> None:
    import transformers as t

    t.FunnelModel(
        t.FunnelConfig(vocab_size=512, block_sizes=[1, 2], num_decoder_layers=1, d_model=32, n_head=2, d_head=16, d_inner=64)
    ).save_pretrained(tmp_path)
    assert open_model(tmp_path).layer_names


def test_a_tokenizer_larger_than_the_embedding(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "llama"))
    text = "Once upon a time there was a little girl who lived in a house."
    ids = open_model(folder).encode(text)
    rows = int(ids.max())
    edit_config(folder, vocab_size=rows)
    edit_tensors(folder, lambda t: t.update({name: t[name][:rows].contiguous() for name in t if len(t[name]) == 512}))
    model = open_model(folder)
    sentence = f"the tokenizer has 512 entries, the model's embedding {rows} rows: there is none for token {rows} "
    for call in (model.encode, model.generate, model.language_model().encode):
        with pytest.raises(ModelError, match=sentence):
            call(text)
    few = ids[ids < rows][:3]
    assert model.language_model().logits(few[None]).shape == (1, 3, rows)
