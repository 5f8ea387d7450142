"""Nothing stale: one changed weight changes every figure that depends on it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.session import Session
from workbench.widgets.base.component import FigureFrame
from workbench.widgets.base.sections import Sections
from workbench.widgets.shell.explorer import Explorer

QUERY = "model.layers.0.self_attn.q_proj"


def frames(explorer: Explorer, title: str) -> list[FigureFrame]:
    """The figures of one tab, of all its sections, that are drawn."""
    part = explorer.bring(title)
    parts = [part]
    if isinstance(part, Sections):
        parts = []
        for name in part.kinds:
            part.section.value = name
            parts.append(part[name])
    held = [value for one in parts for value in vars(one).values()]
    held += [frame for value in held if isinstance(value, dict) for frame in value.values()]
    return [frame for frame in held if isinstance(frame, FigureFrame) and frame.figure is not None]


def seen(explorer: Explorer) -> dict[str, list[str]]:
    """Every table of the tabs and the map, as text."""
    explorer.bench.jobs.threaded = False
    explorer.bench.one.clicks += 1
    tables = {
        title: [frame.figure.table.to_csv() for frame in frames(explorer, title)] for title in ("Weights", "Saliency", "Error")
    }
    return tables | {"map": [explorer.session.layer_table().to_csv()]}


@pytest.fixture
def edited(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the model in which the largest weight of one layer is doubled."""
    for path in tiny_models["llama"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = next(tmp_path.glob("*.safetensors"))
    tensors = load_file(file)
    name = f"{QUERY}.weight"
    tensors[name] = tensors[name].clone()
    place = int(tensors[name].abs().argmax())
    tensors[name].view(-1)[place] *= 2
    save_file(tensors, file, metadata={"format": "pt"})
    return tmp_path


def test_one_weight_changes_every_dependent_figure(tiny_models: dict[str, Path], edited: Path) -> None:
    explorers = [
        Explorer(Session(wb.open_model(path), recipe=wb.recipe("rtn", bits=2, group=32)), threaded=False)
        for path in (tiny_models["llama"], edited, tiny_models["llama"])
    ]
    before, after, again = (seen(explorer) for explorer in explorers)
    for title, tables in before.items():
        assert tables, title
        for number, table in enumerate(tables):
            assert table != after[title][number], f"{title}, figure {number}, is stale"
            assert table == again[title][number], f"{title}, figure {number}, is not the same twice"
    first, second = (explorer.session.original() for explorer in explorers[:2])
    assert torch.count_nonzero(first != second) == 1
