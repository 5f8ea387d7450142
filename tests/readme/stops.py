"""Write the stops of the built-in model that come with the package: `python -m tests.readme.stops`.

They are built, or taken from the cache where `workbench squeeze builtin` left them, and written beside the model, with their
figures on the shipped evaluation text. Speed stays behind: it is that of this machine.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import workbench as wb
from workbench.analysis.decisions.shipped_stops import INDEX_FILE, SHIPPED_FOLDER
from workbench.analysis.decisions.squeeze import Squeeze, Squeezed
from workbench.jobs import run_steps

OF_THE_MACHINE = ("stop", "tokens_per_second", "slowest", "fastest")


def write_stops(squeeze: Squeeze, target: Path) -> dict[str, dict[str, object]]:
    """Copy every built stop to `target`, and return the index of them."""
    index = {}
    for squeezed in squeeze.built_stops():
        entry: dict[str, object] = {"evaluation": squeeze.evaluation.fingerprint, "facts": collect_portable_facts(squeezed)}
        if not squeezed.stop.is_original:
            name = f"{squeezed.stop.bits:g}-bits"
            shutil.copytree(squeeze.folder(squeezed.stop), target / name)
            entry["folder"] = name
        index[squeeze.key(squeezed.stop)] = entry
    return index


def collect_portable_facts(squeezed: Squeezed) -> dict[str, object]:
    """The figures that hold on every machine, without those that are not there."""
    facts = asdict(squeezed)
    return {name: value for name, value in facts.items() if name not in OF_THE_MACHINE and value is not None}


def main() -> None:
    """Build what is missing, and write all of them."""
    squeeze = Squeeze(wb.open_model("builtin"))
    run_steps(squeeze.steps())
    partial = SHIPPED_FOLDER.with_name("stops.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / INDEX_FILE).write_text(json.dumps(write_stops(squeeze, partial), indent=1) + "\n")
    shutil.rmtree(SHIPPED_FOLDER, ignore_errors=True)
    partial.rename(SHIPPED_FOLDER)


if __name__ == "__main__":
    main()
