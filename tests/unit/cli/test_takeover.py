"""`workbench import`, and `quantize` on an importance matrix: one line for each fact, one sentence for each mistake."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.coded_checkpoints import METHODS, write_coded
from tests.tiny_models import write_model
from tests.unit.cli.conftest import Said


def test_import_says_what_was_taken_over(command: Callable[..., Said], tmp_path: Path) -> None:
    folder = write_model("llama", tmp_path / "model")
    write_coded(folder, METHODS["awq"])
    facts = json.loads(command("import", str(folder), "--out", str(tmp_path / "out"), "--json").out)
    assert set(facts["layers"].values()) == {"uniform"}
    assert facts["left"] == {}
    said = command("import", str(folder), "--out", str(tmp_path / "out")).out
    assert said.startswith("14 layers taken over bit for bit: 14 from AWQ 4 bits")
    shutil.rmtree(tmp_path / "out")
    failed = command("import", "builtin", "--out", str(tmp_path / "out"))
    assert failed.status == 1
    assert failed.err.startswith("error: no layer of 'builtin' can be taken over; model.layers.0.self_attn.q_proj: it is not")


def test_a_damaged_importance_matrix_is_one_sentence(command: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(np.full(4, -1, np.int32).tobytes())
    words = ["quantize", "builtin", "--recipe", "rtn:bits=2,clip=moment", "--imatrix", str(tmp_path / "a.dat")]
    said = command(*words, "--layers", "*.0.mlp.down_proj", "--out", str(tmp_path / "out"))
    assert said.status == 1
    assert "is damaged or incomplete: it holds the size -1" in said.err
