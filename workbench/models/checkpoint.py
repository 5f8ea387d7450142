"""A safetensors checkpoint on disk: the file of each tensor, and reading one tensor at a time.

Opening reads the headers of all shards and checks them against the index; `read` maps only the shard it needs.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading.integer_codes import Codes
from workbench.json_value import is_file_name, read, shorten_value
from workbench.nonfinite import count_nonfinite

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# every file from which transformers makes a tokenizer: the same weights with another tokenizer read other tokens
FINGERPRINT_PATTERNS = (
    *("*token*", "*vocab*", "merges*", "special_*.json", "*.model", "*.spm", "*.tiktoken", "tekken.json", "bpe.codes"),
    *("dict.txt", "emoji.json", "normalizer.json", "byte_maps.json", "word_*.json"),
)
NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies and what it is; `dtype` is torch's name where torch has one, else the file's.

    Of a tensor that another program quantized, `shape` and `dtype` are those of its decoded values, `coded_as` names its format
    and `coded_bytes` are all that is stored for it: codes, scales, zero points.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    coded_as: str = ""
    coded_bytes: int = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that this tensor takes."""
        return self.coded_bytes if self.coded_as else self.decoded_bytes

    @property
    def decoded_bytes(self) -> int:
        """Bytes of its values in memory, in their own type; every name of a type begins with its bits."""
        width = re.search(r"\d+", self.dtype)
        return prod(self.shape) * (max(int(width[0]) // 8, 1) if width else 1)


class Checkpoint:
    """All tensors of a model folder by name, none of them loaded.

    Raises ModelError when the folder has no safetensors, a shard is missing or damaged, or the index names a tensor that its
    shard lacks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files, indexed = _find_shards(folder)
        self.entries: dict[str, TensorEntry] = {}
        for file in self.files:
            self.entries |= read_header(file)
        if not self.entries:
            raise ModelError(f"{self.files[0]} holds no tensors; download it again.")
        for tensor, shard in indexed.items():
            if tensor not in self.entries or self.entries[tensor].file.name != shard:
                raise ModelError(
                    f"{folder / INDEX} says that {shard} holds {tensor!r}, but it does not; download the model again."
                )

    def read(self, tensor: str) -> Tensor:
        """One tensor in its stored dtype; opens only the file that holds it."""
        file = self.entries[tensor].file
        try:
            with safe_open(file, framework="pt") as shard:
                return shard.get_tensor(tensor)
        except (SafetensorError, OSError) as error:
            raise _describe_damaged_file(file, error) from error

    def read_slice(self, tensor: str, index: int) -> Tensor:
        """One entry of a tensor's first dimension, in its stored dtype, without reading the others."""
        file = self.entries[tensor].file
        try:
            with safe_open(file, framework="pt") as shard:
                return shard.get_slice(tensor)[index]
        except (SafetensorError, OSError) as error:
            raise _describe_damaged_file(file, error) from error

    def codes(self, tensor: str) -> Codes | str:
        """The codes of a tensor that another program quantized, or the reason why there are none that are stored here."""
        return f"it is not quantized ({self.entries[tensor].dtype})"

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the weight files, with what another program quantized counted as its decoded values."""
        return self.stored_bytes + sum(entry.decoded_bytes - entry.stored_bytes for entry in self.entries.values())

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over config.json, the tokenizer's files and all weight files (read whole, once)."""
        digest = hashlib.sha256()
        for file in [self.folder / "config.json", *find_tokenizer_files(self.folder), *self.files]:
            with file.open("rb") as stream:
                digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:16]


def _find_shards(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The weight files of a folder, and what its index says: tensor name to file name (empty without an index)."""
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE], {}
    if not (folder / INDEX).is_file():
        raise _describe_missing_weights(folder)
    advice = "it is not a safetensors index: download it again"
    shards = read(folder / INDEX, error=ModelError).get("weight_map", advice)
    indexed = {tensor: shard.as_text() for tensor, shard in shards.items()}
    names = sorted(set(map(Path, indexed.values())))
    elsewhere = [path for path in names if not is_file_name(str(path))]
    if elsewhere:
        raise ModelError(
            f"{folder / INDEX} names {len(elsewhere)} shards outside of the folder, first "
            f"{shorten_value(str(elsewhere[0]))}; put the "
            f"shards beside the index and name them without a path."
        )
    missing = [path.name for path in names if not (folder / path).is_file()]
    if missing or not names:
        what = f"{len(missing)} of {len(names)} shards: {', '.join(missing[:3])}" if names else "all shards"
        raise ModelError(f"{folder} lacks {what}; download the missing files into that folder.")
    return [folder / name for name in names], indexed


def _describe_missing_weights(folder: Path) -> ModelError:
    """What to say about a folder without safetensors; a pickle can run any code when it is loaded, so it is refused."""
    pickles = find_pickles(folder)
    if not pickles:
        return ModelError(f"{folder} has neither {SINGLE_FILE} nor {INDEX}; give a folder with safetensors weights.")
    return ModelError(
        f"{folder} holds its weights only as pickle ({pickles[0]}), which is never loaded because it can run code; "
        f"convert it if you trust it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
    )


def find_tokenizer_files(folder: Path) -> list[Path]:
    """The files that decide which tokens a text becomes, by name."""
    return sorted({path for pattern in FINGERPRINT_PATTERNS for path in folder.glob(pattern) if path.is_file()})


def find_pickles(folder: Path) -> list[str]:
    """Names of the files that hold weights as pickles; what a trainer leaves beside them is none."""
    return sorted(path.name for pattern in PICKLES for path in folder.glob(pattern) if not path.name.startswith(NO_WEIGHTS))


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Name, shape and dtype of every tensor in one file; the data stays on disk."""
    try:
        with safe_open(file, framework="pt") as shard:
            slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118  (safe_open is no mapping)
            return {
                name: TensorEntry(file, tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise _describe_damaged_file(file, error) from error


def _describe_damaged_file(file: Path, error: Exception) -> ModelError:
    """What to say about a file that safetensors refuses."""
    return ModelError(f"{file} is damaged or incomplete ({error}); download or copy it again.")


def check_finite(what: str, tensor: Tensor) -> None:
    """ModelError with the count when a tensor holds NaN or infinity."""
    if bad := count_nonfinite(tensor):
        raise ModelError(
            f"{what} holds {bad} of {tensor.numel()} values that are NaN or infinite; the checkpoint is broken there."
        )
