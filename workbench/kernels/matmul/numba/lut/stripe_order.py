"""Stored signs and codes in the order of stripes, which `stripe_layout.py` draws: compiled loops that read each byte once.

Eight codes of b bits are b stored bytes. With one code a byte they are a square of 8 × 8 bits, whose columns are the bytes of the
planes:

    code 0    0 0 0 0 0 1 0 1          plane of bit 0    … 1 0 1
    code 1    0 0 0 0 0 0 1 0    →     plane of bit 1    … 0 1 0
    code 2    0 0 0 0 0 1 1 1          plane of bit 2    … 1 0 1
    …
"""

import numpy as np

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.matmul.numba.lut.sign_matmul import HALF_STRIPE_ROWS, STRIPE_ROWS

STEPS_AT_ONCE = 16  # whose bytes of a row lie close together


@compile_cached(inline="always")
def _locate(step: int, lane: int, abreast: int) -> int:
    """Where the byte of row `lane` and step `step` of a chunk lies in the chunk's plane."""
    if abreast == 1:
        return STRIPE_ROWS * step + 2 * (lane % HALF_STRIPE_ROWS) + lane // HALF_STRIPE_ROWS
    return STRIPE_ROWS * (step - step % abreast) + abreast * lane + step % abreast


@compile_cached
def _read_words(stream: np.ndarray, at: int, apart: int, bits: int, words: np.ndarray) -> None:
    """Eight codes of `bits` bits a word `[steps, rows]` from byte `at` on; rows begin `apart` bytes from each other."""
    steps, rows = words.shape
    for row in range(rows):
        for step in range(steps):
            first = at + row * apart + step * bits
            word = np.uint64(0)
            for byte in range(bits):
                word |= np.uint64(stream[first + byte]) << np.uint64(8 * byte)
            words[step, row] = word


@compile_cached
def _convert_to_planes(words: np.ndarray, bits: int) -> None:
    """Each word of eight codes becomes a word of their planes, a byte each from the lowest bit on."""
    highest = np.uint64((1 << bits) - 1)
    for lane in range(len(words)):
        square = np.uint64(0)
        for code in range(8):  # one a byte
            square |= (words[lane] >> np.uint64(code * bits) & highest) << np.uint64(8 * code)
        # halves, quarters and eighths of the square change places across its diagonal
        moved = (square ^ (square >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
        square ^= moved ^ (moved << np.uint64(7))
        moved = (square ^ (square >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
        square ^= moved ^ (moved << np.uint64(14))
        moved = (square ^ (square >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
        words[lane] = square ^ moved ^ (moved << np.uint64(28))


@compile_cached
def arrange_codes(stream: np.ndarray, shape: tuple[int, int, int], edges: np.ndarray, abreast: int, out: np.ndarray) -> None:
    """Codes of `shape` (rows, steps, bits), packed to the bit, as planes from the highest bit on in `out [stripes, bytes]`."""
    rows, steps, bits = shape
    words = np.empty((STEPS_AT_ONCE, STRIPE_ROWS), np.uint64)
    for stripe in range(len(out)):
        lanes = min(STRIPE_ROWS, rows - STRIPE_ROWS * stripe)
        for chunk in range(len(edges) - 1):
            begin, length = edges[chunk], edges[chunk + 1] - edges[chunk]
            for start in range(0, min(length, steps - begin), STEPS_AT_ONCE):
                count = min(STEPS_AT_ONCE, length - start, steps - begin - start)
                first = (STRIPE_ROWS * stripe * steps + begin + start) * bits
                _read_words(stream, first, steps * bits, bits, words[:count, :lanes])
                for step in range(count):
                    _convert_to_planes(words[step, :lanes], bits)
                    for bit in range(bits):
                        at = STRIPE_ROWS * (begin * bits + length * (bits - 1 - bit))
                        for lane in range(lanes):
                            out[stripe, at + _locate(start + step, lane, abreast)] = np.uint8(
                                words[step, lane] >> np.uint64(8 * bit)
                            )


@compile_cached
def arrange_signs(signs: np.ndarray, edges: np.ndarray, abreast: int, out: np.ndarray) -> None:
    """Bytes of signs `[planes, rows, steps]` in `out [stripes, bytes]`."""
    planes, rows, steps = signs.shape
    for stripe in range(len(out)):
        for chunk in range(len(edges) - 1):
            begin, length = edges[chunk], edges[chunk + 1] - edges[chunk]
            for plane in range(planes):
                at = STRIPE_ROWS * (begin * planes + length * plane)
                for lane in range(min(STRIPE_ROWS, rows - STRIPE_ROWS * stripe)):
                    row = STRIPE_ROWS * stripe + lane
                    for step in range(min(length, steps - begin)):
                        out[stripe, at + _locate(step, lane, abreast)] = signs[plane, row, begin + step]
