"""A model larger than the memory a process may have is sketched layer by layer; loading it whole under the same limit fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

WIDTH, INNER, BLOCKS = 1024, 4096, 16
ALLOWED = 256_000_000  # bytes beyond what the opened model takes; the checkpoint holds more than twice as much
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
PROGRAM = """
import resource, sys
import workbench as wb
from workbench.session import Session
session = Session(wb.open_model(sys.argv[1]))
assert session.layer_table(wait=False)["std"].isna().all()  # this also imports what a table needs
used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[3]),) * 2)
if sys.argv[2] == "whole":
    kept = [session.model.weight(name).clone() for name in session.model.layer_names]
else:
    for number, step in enumerate(session.shared.sketch_steps()):
        if number == 3:
            assert session.layer_table(wait=False)["std"].notna().sum() == 4, "the page can be used meanwhile"
    table = session.layer_table()
    print(len(table), table["std"].notna().sum(), session.shared.sketch(table["name"][0]).absmax)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded Llama of 537 MB in bf16: the same random block sixteen times, but for one weight."""
    root = tmp_path_factory.mktemp("large")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 64,
        "tie_word_embeddings": True,
    }
    (root / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(0)
    block = {name: (torch.randn(shape, generator=draw) * 0.02).bfloat16() for name, shape in SHAPES.items()}
    places = {}
    for number in range(BLOCKS):
        tensors = {f"model.layers.{number}.{name}.weight": weight.clone() for name, weight in block.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{number}.{norm}.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
        if number == 0:
            tensors["model.embed_tokens.weight"] = torch.randn(64, WIDTH, generator=draw).bfloat16()
            tensors["model.norm.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
            tensors["model.layers.0.self_attn.q_proj.weight"][5, 7] = 3.0
        file = f"model-{number:02}.safetensors"
        save_file(tensors, root / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return root


def run(folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    """The program above in a process of its own, whose data are what it holds: no stacks of further threads, no free heap."""
    words = [sys.executable, "-c", PROGRAM, str(folder), what, str(ALLOWED)]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], env=alone)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's data by RLIMIT_DATA")
def test_a_model_larger_than_the_memory_allowed_is_read(folder: Path) -> None:
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert stored > 2 * ALLOWED
    done = run(folder, "sketches")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(7 * BLOCKS), str(7 * BLOCKS), "3.0"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's data by RLIMIT_DATA")
def test_the_limit_is_real(folder: Path) -> None:
    done = run(folder, "whole")
    assert done.returncode != 0
    assert "allocate memory" in done.stderr or "MemoryError" in done.stderr, done.stderr[-2000:]
