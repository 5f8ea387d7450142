"""What a long command says before it starts."""

import math
import re
from collections.abc import Callable

import pytest

import workbench as wb
from tests.unit.cli.conftest import Said
from workbench.cli import long_jobs
from workbench.cli.long_jobs import Reading, announce_allocation, announce_stops, estimate_texts, is_large
from workbench.models import open_model
from workbench.models.text import Text

TAKES = r"about \d+(\.\d)? [MG]B of memory \(\d+(\.\d)? [MG]B free\)(, \d+ MB on disk)?, about \d+ (seconds|minutes)\n"
TEXT = Text("two", ("Tom had a red ball. He threw it high.", "A small bird sat on the roof and sang."))


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    monkeypatch.setattr(long_jobs, "LONG_SECONDS", math.inf)  # whatever this machine takes: it is said because it streams


def test_nothing_is_said_of_a_small_model(command: Callable[..., Said]) -> None:
    assert command("eval", "builtin", "--tokens", 20).err == ""


@pytest.mark.usefixtures("streamed")
def test_a_streamed_model_says_what_reading_takes(command: Callable[..., Said]) -> None:
    said = command("eval", "builtin", "--tokens", 20)
    assert said.status == 0
    assert re.fullmatch(rf"20 tokens to process: {TAKES}", said.err), said.err


@pytest.mark.usefixtures("streamed")
def test_a_streamed_model_says_what_an_allocation_takes(capsys: pytest.CaptureFixture[str]) -> None:
    recipes = [wb.recipe("rtn", bits=2), wb.recipe("rtn", bits=4)]
    announce_allocation(open_model("builtin"), recipes, "*.0.*.o_proj", TEXT, TEXT, 20)
    said = capsys.readouterr().err
    assert re.fullmatch(rf"2 quantized layers to measure: {TAKES}", said), said


@pytest.mark.usefixtures("streamed")
def test_a_streamed_model_says_what_building_all_stops_takes(capsys: pytest.CaptureFixture[str]) -> None:
    announce_stops(open_model("builtin"), [wb.recipe("rtn", bits=2), wb.recipe("gptq", bits=4)], 64, TEXT)
    said = capsys.readouterr().err
    assert re.fullmatch(rf"2 models to build: {TAKES}", said), said


@pytest.mark.usefixtures("streamed")
def test_readings_add_up() -> None:
    model = open_model("builtin")
    assert is_large(model)
    once, twice = estimate_texts(model, [Reading(TEXT, None)]), estimate_texts(model, [Reading(TEXT, None), Reading(TEXT, 5, 3)])
    tokens = sum(model.encode(document).shape[1] for document in TEXT.documents)
    assert once.work == f"{tokens} tokens to process"
    assert twice.work == f"{tokens + 15} tokens to process"
    assert twice.memory >= 4 * 512 * 256
    assert estimate_texts(model, [Reading(TEXT, None, 1000)]).seconds > 10 * once.seconds
