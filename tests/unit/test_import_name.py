"""Another distribution of the same import name is noticed before anything strange happens."""

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.import_name import check_import_name

METADATA = "Metadata-Version: 2.1\nName: workbench\nVersion: 3.2\n"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder of packages in which another distribution is installed."""
    (tmp_path / "workbench-3.2.dist-info").mkdir()
    (tmp_path / "workbench-3.2.dist-info" / "METADATA").write_text(METADATA)
    return tmp_path


def test_alone_nothing_is_said() -> None:
    check_import_name.cache_clear()
    check_import_name()


def test_another_distribution_is_named(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(other)
    check_import_name.cache_clear()
    with pytest.raises(
        WorkbenchError, match="workbench 3.2 is installed beside quantization-workbench, .* `pip uninstall workbench"
    ):
        check_import_name()


@pytest.mark.parametrize("code", ["import workbench as wb; wb.open_model('builtin')", "from workbench.cli import main; main()"])
def test_a_user_reads_one_sentence(other: Path, code: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(other)!r}); sys.argv = ['workbench', 'recipes']; {code}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "their files are mixed" in said.stderr
