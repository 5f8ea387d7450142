"""Kills at random moments: `python -m tests.kills WORK FOLDER COUNT SEED [planted]` prints what it found as JSON.

Work runs in forks of one process, which has imported everything, so that a kill costs a tenth of a second. After each kill
everything on disk is checked, and the next fork goes on from there. `planted` writes files and folders in place.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from tests.tiny_models import write_model
from workbench import atomic, store
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.stops import Stop
from workbench.artifact import load, reading, saving
from workbench.errors import WorkbenchError
from workbench.jobs import run_steps
from workbench.models.text import Text
from workbench.session import Session, SharedModel, session_file
from workbench.store import Store

STORY = Text("story", ("Tom had a red ball. He threw it high. A small bird sat on the roof and sang. " * 4,) * 3)
STOPS = (Stop(8, "rtn:bits=8,group=32", 1), Stop(3, "gptq:bits=3,group=32", 1))


class Work:
    """Something that writes below a folder: `run` does it, `damage` says what is wrong on disk, `end` what is after the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = wb.open_model(write_model("llama", folder / "model"))
        self.store = Store(folder / "cache")

    def run(self) -> None:
        """Do the work, from where the last one was killed."""
        raise NotImplementedError

    def again(self) -> None:
        """Begin anew, after a run that came to its end."""
        shutil.rmtree(self.store.folder, ignore_errors=True)

    def damage(self) -> list[str]:
        """What is not as it was written."""
        found = []
        for item in self.store.items():
            if item.kind == "model":
                try:
                    reading.read(item.path)
                except WorkbenchError as error:
                    found.append(str(error))
            elif not item.is_partial and (why := self.store.damage(item)):
                found.append(f"{item.path.name}: {why}")
        return found

    def end(self) -> list[str]:
        """What is wrong after a last run without a kill."""
        self.run()
        self.store.prune()
        return self.damage() + [f"left over: {item.path.name}" for item in self.store.items() if item.is_partial]


class Sequence(Work):
    """A run block by block, whose result must be that of a run without kills."""

    def quantized(self, place: Store | None) -> dict[str, Any]:
        recipe = wb.recipe("gptq", bits=3, group=32)
        made = wb.quantize_model(self.model, recipe, text=STORY, tokens=256, store=place)
        trees = [(name, path, node) for name, layer in made.layers.items() for path, node in layer.packed.walk()]
        return {f"{name}|{path}|{kind}": value for name, path, node in trees for kind, value in node.tensors.items()}

    def run(self) -> None:
        self.quantized(self.store)

    def end(self) -> list[str]:
        found, right = self.quantized(self.store), self.quantized(None)
        wrong = [name for name in right if not torch.equal(found[name], right[name])]
        return [f"another result: {name}" for name in wrong] + super().end()


class Stops(Work):
    """The stops of the squeeze slider."""

    def run(self) -> None:
        squeeze = Squeeze(self.model, self.store, stops=STOPS, calibration=STORY, evaluation=STORY, tokens=64)
        assert len(run_steps(squeeze.steps())) == len(STOPS)


class Entries(Work):
    """Entries of the store, replaced again and again."""

    def run(self) -> None:
        for turn in range(100):
            self.store.put("aa", {"data": torch.full((100_000,), float(turn))}, {"turn": turn})

    def again(self) -> None:
        """An entry is there from the first run on."""

    def damage(self) -> list[str]:
        entry = self.store.get("aa")
        if entry is None:
            return ["the entry is lost"]
        return [] if bool((entry.tensors["data"] == entry.facts["turn"]).all()) else ["two entries are mixed"]


class SavedSession(Work):
    """A session, saved after each step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.shared = SharedModel(self.model)
        self.session = Session(self.shared, recipe=wb.recipe("rtn", bits=2, group=32))
        self.place = folder / "session.json"

    def run(self) -> None:
        for turn in range(40):
            self.session.ask("Once upon a time " * (1 + turn % 7))
            session_file.save(self.session, self.place)

    def again(self) -> None:
        """The file is there from the first run on."""

    def damage(self) -> list[str]:
        try:
            session_file.restore_session(Session(self.shared, recipe=wb.recipe("rtn", bits=2, group=32)), self.place.read_text())
        except (WorkbenchError, OSError) as error:
            return [str(error)]
        return []


class Artifact(Work):
    """A quantized model, saved over an older one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.made = wb.quantize_model(self.model, wb.recipe("rtn", bits=2, group=32), layers="*.0.mlp.*")
        self.place = folder / "outputs" / "out"

    def run(self) -> None:
        for _ in range(10):
            wb.save(self.made, self.place, self.model)

    def again(self) -> None:
        """The folder is there from the first run on."""

    def damage(self) -> list[str]:
        try:
            load(self.place)
        except (WorkbenchError, OSError) as error:
            return [str(error)]
        return []

    def end(self) -> list[str]:
        return super().end() + [f"left over: {path.name}" for path in self.place.parent.iterdir() if path != self.place]


WORKS = {"sequence": Sequence, "squeeze": Stops, "store": Entries, "session": SavedSession, "save": Artifact}


def forked(work: Callable[[], None]) -> int:
    """Run work in a fork; returns its number."""
    if number := os.fork():
        return number
    try:
        work()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  a fork must not return into what its parent does
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def ended(number: int) -> int:
    """Exit status of a fork, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kill_often(work: Work, count: int, seed: int) -> dict[str, Any]:
    """Run and kill so many times, check each time, and run to the end; what was found."""
    work.run()  # here, so that forks begin with everything imported and compiled
    work.again()
    draw, begin = random.Random(seed), time.perf_counter()
    failed = [f"exit status {status}" for status in [ended(forked(work.run))] if status]
    seconds = time.perf_counter() - begin
    damaged, killed = work.damage(), 0
    work.again()
    while killed < count and not damaged and not failed:
        number = forked(work.run)
        time.sleep(draw.random() * seconds)
        os.kill(number, signal.SIGKILL)
        status = ended(number)
        killed += status == -signal.SIGKILL
        damaged += work.damage()
        failed += [f"exit status {status}"] if status > 0 else []
        if status == 0:
            work.again()
    return {"killed": killed, "seconds": seconds, "damaged": damaged, "failed": failed, "end": [] if damaged else work.end()}


def write_in_place(target: Path, data: bytes, **_: bool) -> None:
    """A planted fault: a file that is seen while it is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            file.write(half)
            file.flush()
            time.sleep(0.05)


@contextmanager
def folder_in_place(path: str | Path, _: object) -> Iterator[Path]:
    """A planted fault: a folder that is seen while it is written."""
    shutil.rmtree(path, ignore_errors=True)
    Path(path).mkdir(parents=True)
    time.sleep(1)
    yield Path(path)


def main() -> None:
    """Kill what the arguments name."""
    name, folder, count, seed = sys.argv[1:5]
    torch.set_num_threads(1)
    work = WORKS[name](Path(folder))
    if sys.argv[5:] == ["planted"]:
        atomic.replace_file = store.replace_file = write_in_place
        saving.write_folder = folder_in_place
    sys.stdout.write(json.dumps(kill_often(work, int(count), int(seed))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # thread pools of a process that was forked may wait for threads that are not there


if __name__ == "__main__":
    main()
