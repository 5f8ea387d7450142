"""A tiny model that sessions share, and a session on it."""

from pathlib import Path

import pytest

import workbench as wb
from workbench.session import Session, SharedModel


@pytest.fixture(scope="session")
def shared(tiny_models: dict[str, Path]) -> SharedModel:
    """One tiny Llama for all sessions, calibrated once."""
    return SharedModel(wb.open_model(tiny_models["llama"]))


@pytest.fixture
def session(shared: SharedModel) -> Session:
    """A visitor of their own, with round to nearest at two bits on the bench."""
    return Session(shared, recipe=wb.recipe("rtn", bits=2, group=32))
