"""Choice of the backend for a stored matrix, with the reason why each other one is not used.

Backends stand in one table, best first; the first that does not refuse is used. WORKBENCH_KERNELS=<name> forces one, and a
forced backend that refuses is a KernelError: nothing falls back silently.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from workbench import registry
from workbench.errors import KernelError
from workbench.kernels import formats
from workbench.kernels.forced_backend import VARIABLE, read_forced_backend
from workbench.kernels.formats.rounding import find_rounding_bits
from workbench.kernels.kernel_mode import Mode, Product
from workbench.kernels.matmul.cuda import backend as cuda
from workbench.kernels.matmul.numba import backend as numba
from workbench.kernels.packing.packed import Packed


@dataclass(frozen=True)
class Backend:
    """One way to compute x Wᵀ.

    `refuses(packed, batch)` is one sentence, or None where it can run; `prepare(packed, mode)` makes what is done once for all
    inputs. A backend of another device is one more folder beside `numba` and one more row in the table below.
    """

    name: str
    reason: str
    refuses: Callable[[Packed, int], str | None]
    prepare: Callable[[Packed, Mode], Product]


def _refuse_nothing(packed: Packed, batch: int) -> None:
    """The reference refuses nothing."""


ONCE = Mode(cache="none")  # nothing is kept of what runs once

BACKENDS = (
    Backend(
        "cuda",
        "multiplies directly from packed codes on the GPU: table lookups for small batches, tensor cores for larger ones",
        cuda.describe_refusal,
        cuda.prepare,
    ),
    Backend(
        "numba",
        "multiplies directly from packed codes by table lookup; compiled for this CPU",
        numba.describe_refusal,
        numba.prepare,
    ),
    Backend(
        "reference",
        "plain torch: decodes the matrix and multiplies; runs every format on every device",
        _refuse_nothing,
        formats.prepare,
    ),
)


@dataclass(frozen=True)
class Explanation:
    """The backend that runs a stored matrix, why, and one sentence for each backend that does not."""

    backend: str
    reason: str
    refused: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.backend}: {self.reason}", *(f"not {name}: {why}" for name, why in self.refused.items())]
        return "\n".join(lines)


def linear(x: Tensor, packed: Packed, bias: Tensor | None = None, mode: Mode = ONCE) -> Tensor:
    """x Wᵀ + bias: `[..., cols]` to `[..., rows]` in the type of `x`, on the chosen backend; `PackedLinear` prepares once."""
    y = choose(packed, count_inputs(x, packed.cols))[0].prepare(packed, mode)(x)
    return y if bias is None else y + bias.to(y.dtype)


def count_inputs(x: Tensor, cols: int) -> int:
    """How many inputs `[..., cols]` holds."""
    return x.numel() // max(1, cols)  # a tensor's shape takes longer to ask for


def explain(packed: Packed, batch: int = 1) -> Explanation:
    """Say which backend runs a stored matrix, and why the others do not.

    Args:
        packed: A stored matrix, the `packed` of what `wb.quantize` gave.
        batch: Inputs at a time.

    Returns:
        The backend's name, the reason, and a sentence for every other backend; printed, a line each.

    Raises:
        KernelError: For a backend that WORKBENCH_KERNELS names and that is unknown or refuses.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> why = wb.measures.explain_kernels(result.packed)
        >>> why.backend, sorted(why.refused)
        ('numba', ['cuda', 'reference'])
    """
    backend, refused = choose(packed, batch)
    reason = f"forced by {VARIABLE}; {backend.reason}" if read_forced_backend() else backend.reason
    if bits := find_rounding_bits(packed):
        reason += f"; inputs are rounded to {bits} bits per token first, and multiplied as floats, not as integers"
    for other in BACKENDS:
        if other is not backend and other.name not in refused:
            refused[other.name] = (
                other.refuses(packed, batch)
                or f"{backend.name} {'is forced' if read_forced_backend() else 'comes first and can run it'}"
            )
    return Explanation(backend.name, reason, refused)


def choose(packed: Packed, batch: int) -> tuple[Backend, dict[str, str]]:
    """Choose the backend that multiplies with a stored matrix.

    It is the first that does not refuse, or the one that WORKBENCH_KERNELS names.

    Args:
        packed: A stored matrix, the `packed` of what `wb.quantize` gave.
        batch: Inputs at a time.

    Returns:
        The backend, and a sentence for each backend before it that refused, by name.

    Raises:
        KernelError: For a forced backend that is unknown or refuses.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> backend, refused = wb.measures.choose_kernel(result.packed, batch=1)
        >>> backend.name
        'numba'
        >>> refused
        {'cuda': 'it runs on a CUDA device, and the stored tensors are on cpu'}
    """
    named = read_forced_backend()
    if named and named not in {backend.name for backend in BACKENDS}:
        raise KernelError(f"{VARIABLE}: {registry.describe_unknown('backend', named, [backend.name for backend in BACKENDS])}")
    refused: dict[str, str] = {}
    for backend in BACKENDS:
        if named and backend.name != named:
            continue
        why = backend.refuses(packed, batch)
        if why is None:
            return backend, refused
        refused[backend.name] = why
    raise KernelError(f"{VARIABLE}={named} cannot run format {packed.format!r}: {refused[str(named)]}")
