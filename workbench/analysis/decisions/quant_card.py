"""The facts of a quant card: the model, its recipe, stored bits and errors, hashes, environment and times.

One JSON document. Two cards of the same recipe and texts on one machine differ only under "times"; `card_diff` compares
any two. No paths and no user names: a model that was opened from a folder is called by the folder's name.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from workbench import __version__
from workbench.analysis.decisions.quant_card_file import KIND, VERSION
from workbench.analysis.predictions.compare import compare
from workbench.artifact import PackedModel, digest, load
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.bench.cpu import read_processor_name
from workbench.errors import ModelError
from workbench.intervals import Interval
from workbench.kernels.matmul import dispatch
from workbench.kernels.packing.packed import Packed
from workbench.models.handle import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.opening import open_model
from workbench.models.text import Text
from workbench.models.text import text as read_text
from workbench.quantized import MODEL_REFINEMENT, QuantizedModel

PROMPT, LENGTH = "Once upon a time", 60
QUANTILES = (0.5, 0.9, 0.99)

Quantized = PackedModel | QuantizedModel


def collect_card_facts(
    quantized: Quantized | str | Path,
    original: ModelHandle | None = None,
    text: Text | None = None,
    *,
    tokens: int | None = None,
    measured: bool = True,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """All facts of a card for a quantized model, or for the folder it was saved in.

    KL (nats per token), perplexity and top-1 agreement are measured against `original` (opened by the name it was quantized
    from when absent) on at most `tokens` tokens of `text` (default: the built-in evaluation text), with 95 % intervals (null
    where there is none) and the paired ratio of both perplexities. `measured=False` leaves them out and runs nothing.
    ModelError where `original` is another model. `on_progress` is told `(windows read, windows)`.
    """
    begin = perf_counter()
    model = load(quantized) if isinstance(quantized, str | Path) else quantized
    quantized_model = model.quantized if isinstance(model, PackedModel) else model
    book = quantized_model.ledger
    calibration, refining = _split_refinement_time(quantized_model.calibration)
    facts: dict[str, Any] = {
        "kind": KIND,
        "version": VERSION,
        "model": {
            "name": strip_model_path(quantized_model.source),
            "quantized_layers": len(quantized_model.layers),
            "quantized_weights": book.weights,
        },
        "recipe": {
            "plan": quantized_model.plan.to_dict(),
            "calibration": calibration,
            "fused": dict(quantized_model.fused),
        },
        "ledger": book.to_dict(),
        "coverage": quantized_model.coverage,
        "unquantized": quantized_model.unquantized,
        "bits_overall": model.bits_overall if isinstance(model, PackedModel) else None,
        "file": _collect_file_facts(model),
        "layers": [_collect_layer_facts(line) for line in quantized_model.table().to_dict("records")],
        "figures": None,
        "hashes": {"layers": {name: hash_tree(layer.packed) for name, layer in quantized_model.layers.items()}},
        "kernels": _count_backends(quantized_model),
        "environment": _collect_environment(),
    }
    changed = {name: digest.hash_tensor(tensor) for name, tensor in quantized_model.changed_tensors.items()}
    facts["hashes"] |= {"changed_tensors": changed, "calibration_text": quantized_model.calibration.get("fingerprint")}
    if isinstance(model, PackedModel):
        facts["hashes"]["original"] = model.fingerprint
    if measured:
        original, words = original or open_model(quantized_model.source), text or read_text("evaluation")
        _check_original(model, original)
        facts["hashes"] |= {"original": original.fingerprint, "evaluation_text": words.fingerprint}
        facts["figures"] = _measure_figures(original, _make_language_model(model, original), words, tokens, on_progress)
    times = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "quantizing": quantized_model.seconds,
        **refining,
        "card": perf_counter() - begin,
    }
    return facts | {"times": times | {"layers": {name: layer.seconds for name, layer in quantized_model.layers.items()}}}


def _split_refinement_time(calibration: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The facts of a calibration without the time that training of the whole model took, and this time."""
    facts = dict(calibration)
    if MODEL_REFINEMENT not in facts:
        return facts, {}
    refined = dict(facts[MODEL_REFINEMENT])
    seconds = refined.pop("seconds")
    return {**facts, MODEL_REFINEMENT: refined}, {"refining": seconds}


def strip_model_path(source: str) -> str:
    """A model's name without the folders around it; hub ids and "builtin" stay."""
    path = Path(source).expanduser()
    return path.name if path.is_absolute() or path.is_dir() or source.startswith(".") else source


def _check_original(model: Quantized, original: ModelHandle) -> None:
    """Raise ModelError unless a saved model was made from `original`."""
    if isinstance(model, PackedModel) and model.fingerprint != original.fingerprint:
        raise ModelError(
            f"the layers were quantized from weights {model.fingerprint}, {original.source!r} has {original.fingerprint}; "
            "give the model they were quantized from."
        )


def _make_language_model(model: Quantized, original: ModelHandle) -> LanguageModel:
    """The quantized model as one that reads and writes."""
    if isinstance(model, PackedModel):
        return model.language_model()
    return build_packed_copy(original, model.layers, model.changed_tensors)


def _measure_figures(
    original: ModelHandle,
    other: LanguageModel,
    text: Text,
    tokens: int | None,
    on_progress: Callable[[float, float], None],
) -> dict[str, Any]:
    """What the change does to predictions on a text, and what both models write after one prompt."""
    lm = original.language_model()
    divergence = compare(lm, other, text, tokens=tokens, on_progress=on_progress)
    quantiles = np.quantile(divergence.per_token.kl, QUANTILES).tolist()
    return {
        "text": text.name,
        "tokens": divergence.tokens,
        "perplexity": divergence.perplexity,
        "perplexity_interval": _serialize_interval(divergence.perplexity_interval),
        "perplexity_original": divergence.perplexity_original,
        "perplexity_original_interval": _serialize_interval(divergence.perplexity_original_interval),
        "ratio": divergence.ratio.ratio,
        "ratio_interval": _serialize_interval(divergence.ratio.interval),
        "kl": divergence.kl,
        "kl_interval": _serialize_interval(divergence.kl_interval),
        "kl_quantiles": {f"{share:g}": value for share, value in zip(QUANTILES, quantiles, strict=True)},
        "top1_changed": divergence.top1_changed,
        "top1_changed_interval": _serialize_interval(divergence.top1_changed_interval),
        "prompt": PROMPT,
        "writes_original": lm.generate(PROMPT, LENGTH),
        "writes": other.generate(PROMPT, LENGTH),
    }


def _serialize_interval(interval: Interval | None) -> list[float] | None:
    """An interval as JSON has it."""
    return None if interval is None else list(interval)


def _collect_file_facts(model: Quantized) -> dict[str, Any] | None:
    """Bytes of packed.safetensors and what they hold, all weights of the model counted; None where nothing was saved."""
    if not isinstance(model, PackedModel):
        return None
    book = model.file_ledger
    return {"bytes": model.bytes, "weights": book.weights, "bits_per_weight": book.bits_per_weight}


def _collect_layer_facts(line: Mapping[str, Any]) -> dict[str, Any]:
    """One layer's row without its time; what was not measured is None."""
    return {key: None if value != value else value for key, value in line.items() if key != "seconds"}


def hash_tree(packed: Packed) -> str:
    """SHA-256 of a stored layer: formats, facts and every tensor's bytes."""
    nodes = [
        [path, node.format, node.rows, node.cols, dict(node.facts), {n: digest.hash_tensor(t) for n, t in node.tensors.items()}]
        for path, node in packed.walk()
    ]
    return hashlib.sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()


def _count_backends(model: QuantizedModel) -> dict[str, int]:
    """How many layers each backend multiplies with here, one input at a time."""
    return dict(sorted(Counter(dispatch.explain(layer.packed).backend for layer in model.layers.values()).items()))


def _collect_environment() -> dict[str, str]:
    """Versions and the processor; nothing that names a person or a place."""
    names = {"torch": "torch", "numba": "numba", "numpy": "numpy", "transformers": "transformers"}
    packages = {label: version(package) for label, package in names.items()}
    return {
        "workbench": __version__,
        "python": platform.python_version(),
        **packages,
        "processor": read_processor_name(),
        "system": platform.system(),
    }
