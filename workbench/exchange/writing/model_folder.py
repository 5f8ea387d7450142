"""A folder in Hugging Face layout: tensors planned one by one, then written one by one, with configuration and tokenizer."""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.artifact.folder_layout import CONFIG, COPIED
from workbench.artifact.tensor_file import stream_tensors
from workbench.atomic import write_folder
from workbench.errors import ArtifactError
from workbench.exchange.writing.outcome import Outcome
from workbench.exchange.writing.source import Source
from workbench.models.checkpoint import SINGLE_FILE
from workbench.nonfinite import count_nonfinite

REPORT = "export.json"  # what became of each tensor; a folder that has it may be replaced by another export
Report = Callable[[float, float], None]
FORMS = {torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the written file, which `build` makes when its turn has come."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    build: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Planned:
    """What becomes of a tensor of the source, and the tensors that are written for it."""

    outcome: Outcome
    tensors: tuple[PlannedTensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(tensor.nbytes for tensor in self.tensors)


def is_export(folder: Path) -> bool:
    """Whether a folder was written by an export, and may be replaced by one."""
    return (folder / REPORT).is_file()


def plan_outcome(
    source: Source, name: str, tensors: Sequence[PlannedTensor], shape: Sequence[int], stored_as: str, loss: str = ""
) -> Planned:
    """What becomes of one tensor of `shape`, whose bits are those of the tensors that are written for it."""
    before = sum(source.count_bits(part) for part in source.parts(name))
    after = 8 * sum(tensor.nbytes for tensor in tensors)
    kind = source.classify(name, shape)
    return Planned(Outcome(name, kind, math.prod(shape), stored_as, before, after, loss), tuple(tensors))


def plan_dequantized(source: Source, name: str, reason: str = "", dtype: torch.dtype = torch.bfloat16) -> Planned:
    """A tensor in 16 bits, as the module has it; what has no point stays as it is. `reason` says why a layer is dequantized.

    ArtifactError where a weight is too large for float16.
    """
    tensor = source.tensor(name)
    written_type = dtype if tensor.is_floating_point() else tensor.dtype
    converted = tensor.to(written_type)
    if tensor.is_floating_point() and (large := count_nonfinite(converted)):
        raise ArtifactError(f"{name!r} has {large} weights that are too large for {FORMS[dtype]}; export to hf or gguf instead.")
    form = FORMS.get(written_type, str(written_type).removeprefix("torch."))
    same = torch.equal(converted.to(tensor.dtype), tensor)
    loss = "" if same else f"dequantized to {form}, because {reason}" if reason else f"rounded to {form}"
    written = PlannedTensor(name, written_type, tuple(tensor.shape), lambda: source.tensor(name).to(written_type))
    return plan_outcome(source, name, [written], tensor.shape, form, loss)


def plan_folder(source: Source) -> list[Planned]:
    """Every tensor as bfloat16."""
    return [plan_dequantized(source, name) for name in source.stacked_names]


def write_model_folder(
    source: Source, path: Path, plan: Sequence[Planned], changes: Mapping[str, Any], report: Report, notes: Iterable[str] = ()
) -> Path:
    """Write the planned tensors, config.json with `changes`, and the tokenizer; all of it or nothing. Returns the weight file.

    OutputError where the folder holds other things than an earlier export, or the disk is full.
    """
    tensors = {tensor.name: tensor for planned in plan for tensor in planned.tensors}
    total, done = sum(tensor.nbytes for tensor in tensors.values()), 0

    def build(name: str) -> Tensor:
        nonlocal done
        done += tensors[name].nbytes
        report(done, total)
        return tensors[name].build()

    with write_folder(path, is_export) as partial:
        stream_tensors(partial / SINGLE_FILE, {name: (t.dtype, t.shape) for name, t in tensors.items()}, build)
        for name in COPIED:
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, partial / name)
        _write_json(partial / CONFIG, build_config(source, changes))
        outcomes = [asdict(planned.outcome) for planned in plan]
        _write_json(partial / REPORT, {"source": source.name, "notes": list(notes), "tensors": outcomes})
    return path / SINGLE_FILE


def build_config(source: Source, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The model's configuration, in bfloat16, with the classes it was opened as and `changes`."""
    fields = {name: value for name, value in source.fields.items() if name != "torch_dtype"}
    return {**fields, "architectures": list(source.config.architectures or ()), "dtype": "bfloat16", **changes}


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")
