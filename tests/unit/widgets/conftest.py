"""No bug becomes a notice unseen."""

from collections.abc import Iterator

import pytest

from workbench.errors import WorkbenchError
from workbench.widgets.base.notices import Notices


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
