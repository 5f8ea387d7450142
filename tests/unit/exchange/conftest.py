"""Exports are compared with plain torch: no kernel is compiled for it."""

import pytest


@pytest.fixture(autouse=True)
def reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed layers multiply with their decoded matrices."""
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
