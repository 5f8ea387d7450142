"""The package as another project's type checker sees it: installed, with its types, from a script outside the repository."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import workbench as wb

pytestmark = pytest.mark.complete

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from pathlib import Path

import workbench as wb

model = wb.open_model("builtin")
layer = model.layer_names[0]
recipe = wb.recipe("rtn", bits=2)
stats = wb.calibrate(model, wb.text("calibration"), tokens=256)
result = wb.quantize(model, layer, recipe, stats)
small = wb.quantize_model(model, wb.LayerPlan.uniform(recipe))
figure = wb.figures.bit_ledger(result.ledger)
sketch = wb.measures.weight_sketch(model.weight(layer))
folder = wb.save(small, Path("small"), model)
packed = wb.load(folder)
effect = wb.what_if(model, layer, recipe, wb.text("evaluation"))
inspector = wb.WeightInspector(model, layer)
explorer = wb.Explorer("builtin", front="Weights")
loss = wb.measures.UNDERTRAINED.added_loss(1e9, 1e11, 4)


def size(quantized: wb.figures.Figure) -> int:
    return len(quantized.answer)
"""
TYPES = {
    "model": "workbench.models.handle.ModelHandle",
    "layer": "str",
    "recipe": "workbench.recipe.Recipe",
    "stats": "workbench.calibration.CalibrationStats",
    "result": "workbench.quantized.QuantizedLayer",
    "result.weight()": "torch._tensor.Tensor",
    "small": "workbench.quantized.QuantizedModel",
    "figure": "workbench.views.figure.Figure",
    "size(figure)": "int",
    "sketch": "workbench.analysis.weights.weight_sketch.Sketch",
    "folder": "pathlib.Path",
    "packed": "workbench.artifact.packed_model.PackedModel",
    'packed.generate("Once upon a time")': "str",
    "effect.kl": "float",
    "inspector": "workbench.widgets.weights.weight_inspector.WeightInspector",
    "explorer.recipe": "workbench.recipe.Recipe",
    "explorer.session": "workbench.session.session.Session",
    "loss": "float",
}
NAMES = [
    *(f"wb.{name}" for name in wb.__all__),
    *(f"wb.figures.{name}" for name in wb.figures.__all__),
    *(f"wb.measures.{name}" for name in wb.measures.__all__),
]


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the package as a wheel installs it, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    shutil.copytree(ROOT / "workbench", site / "workbench", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return site


def check(site_packages: Path, code: str) -> tuple[list[str], list[str]]:
    """The types that mypy reveals in a script outside the repository, and the errors that it finds, without their places."""
    project = site_packages.parents[2] / "project"
    project.mkdir(exist_ok=True)
    (project / "script.py").write_text(code)
    python = Path(sysconfig.get_path("scripts", "venv", {"base": str(site_packages.parents[2])})) / Path(sys.executable).name
    words = ["--strict", "--config-file=", "--python-executable", str(python), "--no-error-summary", "script.py"]
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    command = [sys.executable, "-m", "mypy", *words]
    ran = subprocess.run(command, cwd=project, env=outside, text=True, capture_output=True, check=False)
    assert ran.stderr == ""
    revealed = re.findall(r'^script\.py:\d+: note: Revealed type is "(.*)"$', ran.stdout, re.MULTILINE)
    return revealed, re.findall(r"^\S+: error: (.*?)(?:  \[[\w-]+\])?$", ran.stdout, re.MULTILINE)


def reveal(*expressions: str) -> str:
    """The script, and lines that reveal the types of these expressions."""
    return SCRIPT + "".join(f"reveal_type({expression})\n" for expression in expressions)


def test_what_a_user_works_with_has_its_type(site_packages: Path) -> None:
    types, found = check(site_packages, reveal(*TYPES))
    assert found == []
    assert dict(zip(TYPES, types, strict=True)) == TYPES


def test_no_public_name_is_any(site_packages: Path) -> None:
    types, found = check(site_packages, reveal(*NAMES))
    assert found == []
    assert [name for name, revealed in zip(NAMES, types, strict=True) if revealed in ("Any", "object")] == []


def test_a_mistake_is_found(site_packages: Path) -> None:
    _, found = check(site_packages, f"{SCRIPT}\nwb.quantise\nwb.figures.ledger\nwb.open_model(1)\n")
    assert [error.partition(";")[0] for error in found] == [
        'Module has no attribute "quantise"',
        'Module has no attribute "ledger"',
        'Argument 1 to "open_model" has incompatible type "int"',
    ]


def test_a_name_that_a_type_checker_cannot_see_is_noticed(site_packages: Path) -> None:
    module = site_packages / "workbench" / "figures.py"
    written = module.read_text()
    module.write_text(re.sub("(?m)^    from .* import draw_bit_ledger as bit_ledger\n", "", written))
    try:
        assert any('has no attribute "bit_ledger"' in error for error in check(site_packages, reveal(*TYPES))[1])
    finally:
        module.write_text(written)


def test_a_package_without_its_marker_is_noticed(site_packages: Path) -> None:
    marker = site_packages / "workbench" / "py.typed"
    marker.rename(marker.with_suffix(".away"))
    try:
        assert any("missing library stubs or py.typed marker" in error for error in check(site_packages, reveal(*TYPES))[1])
    finally:
        marker.with_suffix(".away").rename(marker)
