"""The example in CONTRIBUTING is a component: one file and one line bring it into the explorer."""

import importlib.util
import re
from pathlib import Path

from workbench.session import Session
from workbench.widgets.shell.explorer import Explorer
from workbench.widgets.shell.tabs import TABS

CONTRIBUTING = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"
DOWN = "model.layers.0.mlp.down_proj"


def test_the_example_becomes_a_tab(session: Session, tmp_path: Path) -> None:
    code = re.search(r"^```python\n(.*?)^```", CONTRIBUTING.read_text(), re.S | re.M)[1]
    path = tmp_path / "row_norms.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("row_norms", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    line = re.search(r"The line in `TABS` is `\"(\w+)\": (\w+),`", CONTRIBUTING.read_text())
    explorer = Explorer(session, threaded=False, tabs={**TABS, "See": {**TABS["See"], line[1]: getattr(module, line[2])}})
    rows = explorer.bring(line[1])
    explorer.layers.menu.value = DOWN
    norms = session.original().norm(dim=1)
    assert f"Row {int(norms.argmax())} of 64" in rows.frame.answer.object
    assert rows.frame.figure.table["scale"].tolist() == norms.tolist()
    assert explorer.notices.messages == []
