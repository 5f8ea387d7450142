"""What the answers of several commands say of a model: its bytes and bits, its memory and speed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.analysis.predictions.generation_speed import Speed
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle


def collect_stored_facts(model: "ModelHandle | PackedModel") -> dict[str, Any]:
    """What the model takes: `bytes` of its weight files; where it is quantized its bits, and the share of weights they are of."""
    from workbench.models import ModelHandle

    if isinstance(model, ModelHandle):
        return {"bytes": model.stored_bytes}
    return {
        "bytes": model.bytes,
        "bits_per_weight": model.bits_per_weight,
        "nominal_bits": model.nominal_bits,
        "coverage": model.coverage,
        "bits_overall": model.bits_overall,
        "unquantized": model.quantized.unquantized,
    }


def format_bits(facts: dict[str, Any]) -> str:
    """What `collect_stored_facts` says of a quantized model, in words."""
    from workbench.quantized import describe_bits

    names = ("bits_per_weight", "nominal_bits", "coverage", "unquantized", "bits_overall")
    return describe_bits(*(facts[name] for name in names))


def collect_running_facts(model: "ModelHandle | PackedModel", speed: "Speed") -> dict[str, Any]:
    """What the model takes in memory while it runs, and how fast it writes."""
    from workbench.kernels.matmul.packed_matrix import count_resident_bytes

    return {
        "resident_bytes": count_resident_bytes([model.language_model().module]),
        "tokens_per_second": speed.tokens_per_second,
        "tokens_per_second_range": (speed.low, speed.high),
    }
