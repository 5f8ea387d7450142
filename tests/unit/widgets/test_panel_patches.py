"""Each workaround names the releases that need it, and is looked at again when a newer one comes."""

import importlib
import pkgutil
from importlib import metadata

import pytest
from packaging.version import Version

from workbench.widgets import panel_patches

PATCHES = sorted(module.name for module in pkgutil.iter_modules(panel_patches.__path__))


def newer_releases(needed_with: dict[str, str], installed: dict[str, str]) -> list[str]:
    """Libraries that are newer than the newest release, to as many digits as it is given with, that was seen to need a patch."""
    newer = []
    for library, seen in needed_with.items():
        digits = len(Version(seen).release)
        if Version(installed[library]).release[:digits] > Version(seen).release:
            newer.append(f"{library} {installed[library]} after {seen}")
    return newer


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_is_looked_at_again_with_a_newer_release(name: str) -> None:
    patch = importlib.import_module(f"{panel_patches.__name__}.{name}")
    assert len(patch.__doc__.split("\n")) > 1 or len(patch.__doc__) > 80, "it says what is wrong without it"
    installed = {library: metadata.version(library) for library in patch.NEEDED_WITH}
    assert not newer_releases(patch.NEEDED_WITH, installed), f"is {name} still needed? Delete it, or raise NEEDED_WITH"


def test_a_newer_release_is_noticed() -> None:
    assert newer_releases({"panel": "1.9", "plotly": "7"}, {"panel": "1.9.12", "plotly": "7.4.1"}) == []
    assert newer_releases({"panel": "1.9", "plotly": "7"}, {"panel": "1.10.0", "plotly": "8.0"}) == [
        "panel 1.10.0 after 1.9",
        "plotly 8.0 after 7",
    ]
