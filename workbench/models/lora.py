"""LoRA adapters as peft saves them, merged into the weights of their base model as these are read: W + scale · B A."""

import hashlib
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import ModelError
from workbench.json_value import read, shorten_value
from workbench.models.checkpoint import TensorEntry, read_header
from workbench.models.folder_kinds import ADAPTER_CONFIG, ADAPTER_WEIGHTS, has_files
from workbench.nonfinite import count_nonfinite

WEIGHTS = ADAPTER_WEIGHTS[0]
ADAPTED = " + "  # between a base model and the folder of its adapter, in the name of a source
FACTOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<factor>[AB])\.weight")
# what makes an adapter another thing than W + scale · B A, where it is set
OTHERS = {
    "use_dora": "DoRA, which also scales the columns",
    "lora_bias": "a LoRA with biases",
    "modules_to_save": "a LoRA with whole modules of its own (modules_to_save)",
    "trainable_token_indices": "a LoRA with token embeddings of its own",
    "target_parameters": "a LoRA of stacked parameters (target_parameters)",
    "layer_replication": "a LoRA that repeats blocks (layer_replication)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "a block-diagonal LoRA",
    "alora_invocation_tokens": "an activated LoRA, which only some tokens see",
}
RESIDUAL_STARTS = ("pissa", "olora", "corda", "loftq")  # ways to begin that also change the base model
LARGEST_RANK = 1 << 16


class Adapter:
    """An adapter of some layers; ModelError, one sentence, where it is no plain LoRA or its files do not fit each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = _read_settings(folder)
        self._entries = read_header(folder / WEIGHTS)
        self.layers = self._find_factors()

    def _find_factors(self) -> dict[str, tuple[str, str]]:
        """The tensors A `[rank, cols]` and B `[rows, rank]` of each layer, by the layer's name in the base model."""
        factors: dict[str, dict[str, str]] = {}
        for name in self._entries:
            match = FACTOR.fullmatch(name)
            if match is None:
                raise ModelError(
                    f"{self.folder} holds {shorten_value(name)}, which is no part of a plain LoRA; merge it with peft."
                )
            factors.setdefault(match["layer"], {})[match["factor"]] = name
        if lone := [layer for layer, pair in factors.items() if len(pair) < 2]:
            raise ModelError(f"{self.folder} holds one of the two factors of {lone[0]!r}; download it again.")
        return {layer: (pair["A"], pair["B"]) for layer, pair in factors.items()}

    def check_fits(self, shapes: Mapping[str, tuple[int, int]], source: str) -> None:
        """ModelError unless every layer of the adapter is one of the base model, with its sizes."""
        unknown = [name for name in self.layers if name not in shapes]
        if unknown or not self.layers:
            what = f"adapts {unknown[0]!r}, which {source!r} has not" if unknown else "adapts no layer"
            raise ModelError(f"{self.folder} {what}; give the base model that the adapter was trained on.")
        for name, (a, b) in self.layers.items():
            (rank, cols), (rows, inner), expected = self._two_sizes(a), self._two_sizes(b), self._read_rank(name)
            if (rows, cols) != shapes[name] or not rank == inner == expected:
                raise ModelError(
                    f"{self.folder} has factors {[rows, inner]} and {[rank, cols]} for {name!r}, which is {list(shapes[name])} "
                    f"with rank {expected}; give the base model that the adapter was trained on."
                )

    def _two_sizes(self, tensor: str) -> tuple[int, int]:
        entry: TensorEntry = self._entries[tensor]
        if len(entry.shape) != 2:
            raise ModelError(f"{self.folder} stores {tensor!r} as {list(entry.shape)}, which is no factor of a LoRA.")
        return entry.shape[0], entry.shape[1]

    def compute_delta(self, layer: str) -> Tensor:
        """What is added to the weight of a layer, float32 `[rows, cols]`."""
        a, b = (self._read(name).float() for name in self.layers[layer])
        return (b @ a) * self.compute_scale(layer)

    def _read(self, tensor: str) -> Tensor:
        try:
            with safe_open(self.folder / WEIGHTS, framework="pt") as file:
                factor = file.get_tensor(tensor)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self.folder / WEIGHTS} is damaged or incomplete ({error}); copy it again.") from error
        if bad := count_nonfinite(factor):
            raise ModelError(f"{self.folder / WEIGHTS}: {bad} values of {tensor!r} are NaN or infinite; the adapter is broken.")
        return factor

    def compute_scale(self, layer: str) -> float:
        """alpha / rank, or alpha / √rank for a rank-stabilised LoRA."""
        rank, alpha = self._read_rank(layer), self._read_pattern("alpha_pattern", layer, self.settings["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def _read_rank(self, layer: str) -> int:
        return int(self._read_pattern("rank_pattern", layer, self.settings["r"]))

    def _read_pattern(self, name: str, layer: str, default: float) -> float:
        """A number that some layers have of their own, by a pattern that ends their name."""
        patterns = self.settings.get(name) or {}
        return next((number for pattern, number in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer)), default)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over both files."""
        digest = hashlib.sha256()
        for name in (ADAPTER_CONFIG, WEIGHTS):
            with (self.folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:16]


def _read_settings(folder: Path) -> Mapping[str, Any]:
    """The fields of adapter_config.json; ModelError where they describe another thing than a plain LoRA."""
    if not has_files(folder, ADAPTER_CONFIG, WEIGHTS):
        raise ModelError(f"{folder} is no adapter that can be read: it needs {ADAPTER_CONFIG} and {WEIGHTS} (never a pickle).")
    path = folder / ADAPTER_CONFIG
    settings = read(path, error=ModelError, foreign=True).as_object()
    if (kind := settings.get("peft_type")) != "LORA":
        raise ModelError(f"{folder} is {shorten_value(kind)}, not a LoRA; merge it with peft (merge_and_unload).")
    active = [text for name, text in OTHERS.items() if settings.get(name)]
    active += ["a LoRA with biases"] if settings.get("bias", "none") != "none" else []
    start = settings.get("init_lora_weights")
    active += [f"a LoRA that began as {start}"] if isinstance(start, str) and start.lower().startswith(RESIDUAL_STARTS) else []
    if active:
        raise ModelError(f"{folder} is {active[0]}; only a plain LoRA is merged here: merge it with peft (merge_and_unload).")
    _check_numbers(path, settings)
    return settings


def _check_numbers(path: Path, settings: Mapping[str, Any]) -> None:
    """ModelError unless ranks and scales are numbers that can be divided by, and patterns are patterns."""
    for name, kind in (("r", int), ("lora_alpha", int | float)):
        pattern = settings.get("rank_pattern" if name == "r" else "alpha_pattern") or {}
        if not isinstance(pattern, dict):
            raise ModelError(f"{path} says {shorten_value(pattern)} for a pattern; it must be an object of numbers by pattern.")
        for value in (settings.get(name), *pattern.values()):
            if type(value) is bool or not isinstance(value, kind) or not 0 < value <= LARGEST_RANK:
                raise ModelError(f"{path} says {name} {shorten_value(value)}; it must be a number from 1 to {LARGEST_RANK:,}.")
        try:
            any(map(re.compile, pattern))
        except re.error as error:
            raise ModelError(f"{path} holds a pattern that is none ({error}); download it again.") from error
