"""A tiny model on the bench, without a server."""

from pathlib import Path

import pytest

import workbench as wb
from workbench.session import Session, SharedModel


@pytest.fixture(scope="session")
def shared(tiny_models: dict[str, Path]) -> SharedModel:
    """One tiny Llama for all components here, calibrated once."""
    return SharedModel(wb.open_model(tiny_models["llama"]))


@pytest.fixture
def session(shared: SharedModel) -> Session:
    """A visitor of their own."""
    return Session(shared, recipe=wb.recipe("rtn", bits=2, group=32))
