"""Experts as layers: a 3-D parameter with the matrices of all experts is split into one linear layer per expert.

transformers keeps the experts of a mixture in one tensor `[experts, …]` and multiplies with `stack[expert]`. Here each expert's
matrix is an `nn.Linear` below the parameter's name (`…mlp.experts.down_proj.3`), so that it can be hooked, swapped and packed as
any other layer, while the family's own forward pass goes on as it is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# these multiply x @ W without saying so, as classes under transformers' decorator do in `is_transposed`
TRANSPOSED_CLASSES = {"Llama4TextExperts"}


@dataclass(frozen=True)
class StackLayout:
    """How a parameter holds its experts: `experts` matrices `[rows, cols]`, each stored `[cols, rows]` where `transposed`.

    `flat` says that the parameter is 2-D, one expert below the other (DBRX).
    """

    experts: int
    rows: int
    cols: int
    transposed: bool
    flat: bool = False

    def select(self, stack: Tensor, expert: int) -> Tensor:
        """One expert's matrix `[rows, cols]` of the whole stored tensor."""
        if self.flat:
            stack = stack.unflatten(0, (self.experts, -1))
        return self.orient(stack[expert])

    def orient(self, matrix: Tensor) -> Tensor:
        """A stored matrix as `[rows, cols]`."""
        return matrix.mT.contiguous() if self.transposed else matrix


def find_stacks(module: nn.Module) -> dict[str, StackLayout]:
    """The parameters of `module` that hold experts, by name; they may be on the meta device."""
    return {
        f"{path}.{name}": layout
        for path, owner in module.named_modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if (layout := _read_layout(owner, name, parameter)) is not None
    }


def _read_layout(owner: nn.Module, name: str, parameter: Tensor) -> StackLayout | None:
    """How `parameter` of `owner` holds experts, or None where it does not."""
    kind = type(owner).__name__
    if kind == "DbrxExpertGLU":
        experts: Any = owner.moe_num_experts
        inner, width = parameter.shape[0] // experts, parameter.shape[1]
        rows, cols = (width, inner) if name == "w2" else (inner, width)
        return StackLayout(experts, rows, cols, transposed=name == "w2", flat=True)
    if "Experts" not in kind or parameter.ndim != 3:
        return None
    transposed = bool(getattr(owner, "is_transposed", kind in TRANSPOSED_CLASSES))
    sizes = parameter.shape[1:]
    rows, cols = reversed(sizes) if transposed else sizes
    return StackLayout(parameter.shape[0], rows, cols, transposed)


def split_experts(module: nn.Module, stacks: Mapping[str, StackLayout]) -> None:
    """Put linear layers in the place of the stacked parameters, uninitialised, on their parameter's device."""
    for name, layout in stacks.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        parameter = owner.get_parameter(leaf)
        delattr(owner, leaf)
        owner.add_module(leaf, ExpertStack(layout, parameter.dtype, parameter.device))
    if stacks:
        _use_eager_experts(module)


def _use_eager_experts(module: nn.Module) -> None:
    """Have mixtures loop over their experts: other implementations multiply with the whole stack at once."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "_experts_implementation"):
            config._experts_implementation = "eager"


class ExpertStack(nn.Module):
    """The experts' layers by number, standing where the module's code expects the stacked parameter."""

    def __init__(self, layout: StackLayout, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.layout = layout
        for number in range(layout.experts):
            linear = nn.Linear(layout.cols, layout.rows, bias=False, device="meta", dtype=dtype)
            self.add_module(str(number), linear if device.type == "meta" else linear.to_empty(device=device))

    @property
    def maps(self) -> list["LinearMap"]:
        """All experts, in order."""
        return [LinearMap(part) for part in self.children()]

    @property
    def shape(self) -> torch.Size:
        """That of the parameter in whose place this stands."""
        sizes = (self.layout.cols, self.layout.rows) if self.layout.transposed else (self.layout.rows, self.layout.cols)
        return torch.Size((self.layout.experts, *sizes))

    def __getitem__(self, expert: int | Tensor) -> "LinearMap":
        return LinearMap(self.get_submodule(str(int(expert))))

    def view(self, *_sizes: Any) -> "ExpertStack":
        """Itself: a flat stack is viewed as `[experts, …]` before an expert is taken from it."""
        return self

    def transpose(self, *_dims: int) -> "ExpertStack":
        """Itself: which side a layer multiplies from is its own affair."""
        return self

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Tensor:
        if function is torch.bmm and not kwargs and isinstance(args[1], cls):
            inputs, stack = args
            return torch.stack([expert_map(x) for expert_map, x in zip(stack.maps, inputs, strict=True)])
        raise TypeError(f"{function} of a stack of experts is not supported; only torch.bmm(inputs, stack) is.")


class LinearMap:
    """A layer standing where the module's code expects a matrix to multiply with.

    However the product is written (`linear(x, W)`, `x @ W`, `x @ W.T`), it is what the layer computes.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output `[tokens, rows]` for `x [tokens, cols]`."""
        return self.layer(x)

    @property
    def T(self) -> "LinearMap":  # noqa: N802  torch's name
        """Itself, as for `ExpertStack.transpose`."""
        return self

    def t(self) -> "LinearMap":
        """Itself."""
        return self

    def float(self) -> "LinearMap":
        """Itself: layers compute in float32."""
        return self

    def to(self, *_args: Any, **_kwargs: Any) -> "LinearMap":
        """Itself."""
        return self

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Tensor:
        if function in PRODUCTS and not kwargs and len(args) == 2 and isinstance(args[1], cls):
            return args[1](args[0])
        raise TypeError(f"{function} of an expert's layer is not supported; only matmuls x W are.")


PRODUCTS = (nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm)


def iterate_expert_names(name: str, layout: StackLayout) -> Iterator[tuple[str, int]]:
    """The names of the weights that a stacked parameter becomes, each with its expert's number."""
    for number in range(layout.experts):
        yield f"{name}.{number}.weight", number
