"""A tiny model on the bench, without a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.session import Session, SharedModel
from workbench.widgets.notices import Notices


@pytest.fixture(scope="session")
def shared(tiny_models: dict[str, Path]) -> SharedModel:
    """One tiny Llama for all components here, calibrated once."""
    return SharedModel(wb.open_model(tiny_models["llama"]))


@pytest.fixture
def session(shared: SharedModel) -> Session:
    """A visitor of their own."""
    return Session(shared, recipe=wb.recipe("rtn", bits=2, group=32))


@pytest.fixture(autouse=True)
def bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Errors that became notices and are no user's mistake; a test that plants one takes it from this list."""
    found: list[BaseException] = []
    report = Notices.report

    def heard(self: Notices, error: BaseException) -> None:
        report(self, error)
        if not isinstance(error, WorkbenchError):
            found.append(error)

    monkeypatch.setattr(Notices, "report", heard)
    yield found
    assert found == []
