"""Products with 16-bit matrices, and the compiled parts of a decoder block, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.kernels.decoder import attention, gate, normalization
from workbench.kernels.jit import threads
from workbench.kernels.jit.exponential import HIGHEST, LOWEST, compute_exponential
from workbench.kernels.matmul.half_precision import find_product


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("shape", [(1, 32), (130, 96), (67, 64)])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_product_is_that_of_the_widened_numbers(
    kind: torch.dtype, shape: tuple[int, int], parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.kernels.matmul.numba.dense import bf16_matmul, fp16_matmul

    for module in (bf16_matmul, fp16_matmul):
        monkeypatch.setattr(module, "needs_threads", lambda weights: parallel)
    weight, x = torch.randn(shape).to(kind), torch.randn(3, shape[1])
    product = find_product(weight)
    assert product is not None
    torch.testing.assert_close(product(x), x @ weight.float().mT, atol=1e-4, rtol=1e-4)


def test_every_bfloat16_is_widened_exactly() -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = bits[bits.isfinite()][:, None].contiguous()
    product = find_product(finite)
    assert product is not None
    assert torch.equal(product(torch.ones(1, 1))[0], finite[:, 0].float())


def test_no_product_where_torch_must_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_product(torch.ones(4, 33, dtype=torch.float16)) is None
    assert find_product(torch.ones(4, 32)) is None
    assert find_product(torch.ones(32, 4, dtype=torch.bfloat16).mT) is None
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    assert find_product(torch.ones(4, 32, dtype=torch.bfloat16)) is None


@given(st.floats(float(LOWEST), float(HIGHEST), width=32))
def test_exponential(x: float) -> None:
    assert compute_exponential(np.float32(x)) == pytest.approx(np.exp(np.float64(x)), rel=1e-5)


def test_exponential_of_numbers_beyond_float32() -> None:
    assert compute_exponential(np.float32(-1e30)) == compute_exponential(LOWEST) < 1e-37
    assert np.isfinite(compute_exponential(np.float32(1e30)))


@given(st.integers(1, 3), st.integers(1, 200), st.integers(0, 9))
def test_gate_and_norms(tokens: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, change, up = (torch.randn(tokens, width, generator=draw) * 5 for _ in range(3))
    weight, out = torch.randn(width, generator=draw), torch.empty(tokens, width)
    expected = torch.nn.functional.silu(x) * up
    gate.multiply_by_silu(x.numpy(), up.numpy())
    torch.testing.assert_close(up, expected, atol=1e-5, rtol=1e-5)
    total = x + change
    normed = torch.nn.functional.rms_norm(total, (width,), weight, 1e-5)
    normalization.add_and_normalize(x.numpy(), change.numpy(), weight.numpy(), 1e-5, out.numpy())
    torch.testing.assert_close(x, total)
    torch.testing.assert_close(out, normed, atol=1e-5, rtol=1e-5)
    normalization.normalize(change.numpy(), weight.numpy(), 1e-5, out.numpy())
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(change, (width,), weight, 1e-5), atol=1e-5, rtol=1e-5)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 20), st.integers(1, 70), st.integers(0, 9))
def test_attention_of_one_token(key_heads: int, group: int, pairs: int, count: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    heads, width, capacity = key_heads * group, 2 * pairs, count + seed
    query = torch.randn(heads, width, generator=draw)
    keys, values = (
        torch.randn(key_heads, width, capacity, generator=draw),
        torch.randn(key_heads, capacity, width, generator=draw),
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[None, :, None], keys[None, :, :, :count].mT, values[None, :, :count], scale=0.3, enable_gqa=True
    )[0, :, 0]
    for loop in (attention.attend_serial, attention.attend_parallel):
        out, scores = torch.empty(heads, width), np.empty((heads, capacity), np.float32)
        with threads.use_threads():
            loop(query.numpy(), keys.numpy(), values.numpy(), count, np.float32(0.3), scores, out.numpy())
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
