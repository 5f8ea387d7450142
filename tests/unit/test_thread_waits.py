"""Waiting threads sleep soon, unless a user has said how long they wait."""

import os

import pytest

from workbench.thread_waits import SETTINGS, SPINS, shorten_spins


def test_threads_spin_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    shorten_spins()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_a_user_decides_it(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv(name, value)
    shorten_spins()
    assert {setting: os.environ.get(setting) for setting in SETTINGS} == {**dict.fromkeys(SETTINGS), name: value}
