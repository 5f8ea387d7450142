"""The compiled loops: tables of sums, and products that look sums up. Compiled once for each machine and kept on disk."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def byte_table(x: np.ndarray) -> np.ndarray:
    """Every signed sum of 8 neighbouring inputs: `x [cols]` to `[cols / 8, 256]`; a set bit adds, a clear bit subtracts."""
    table = np.empty((x.size // 8, 256), np.float32)
    for segment in range(x.size // 8):
        sums = table[segment]
        sums[0] = -x[8 * segment : 8 * segment + 8].sum()
        for bit in range(8):
            step = 2 * x[8 * segment + bit]
            for low in range(1 << bit):
                sums[low + (1 << bit)] = sums[low] + step
    return table


@njit(cache=True, nogil=True)
def word_table(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Product of every segment of `x [segments · length]` with every column of `words [length, entries]`."""
    length, entries = words.shape
    table = np.zeros((x.size // length, entries), np.float32)
    for segment in range(x.size // length):
        for place in range(length):
            value = x[segment * length + place]
            for word in range(entries):
                table[segment, word] += value * words[place, word]
    return table


@njit(cache=True, nogil=True)
def codewords(stream: np.ndarray, length: int, entries: int) -> np.ndarray:
    """A codebook's bit stream as ±1, `[length, entries]`."""
    words = np.empty((length, entries), np.float32)
    for word in range(entries):
        for place in range(length):
            words[place, word] = 2 * code_at(stream, word * length + place, 1) - 1
    return words


@njit(cache=True, nogil=True)
def code_at(stream: np.ndarray, index: int, width: int) -> np.int64:
    """Code `index` of a bit stream, byte by byte."""
    if width == 8:
        return np.int64(stream[index])
    bit = index * width
    code, have = np.int64(stream[bit // 8]) >> (bit % 8), 8 - bit % 8
    while have < width:
        code |= np.int64(stream[(bit + have) // 8]) << have
        have += 8
    return code & ((1 << width) - 1)


@njit(cache=True, nogil=True)
def add_sums(table: np.ndarray, stream: np.ndarray, width: int, scale: np.ndarray, per_group: int, y: np.ndarray) -> None:
    """y[r] += Σ_g scale[r, g] · Σ_s table[s, code(r, s)], where segments s come in groups of `per_group`."""
    segments = len(table)
    for row in range(len(scale)):
        for group in range(scale.shape[1]):
            # four sums at a time: one alone would wait for each addition
            a = b = c = d = np.float32(0)
            segment, stop = group * per_group, min((group + 1) * per_group, segments)
            place = row * segments
            while segment + 4 <= stop:
                a += table[segment, code_at(stream, place + segment, width)]
                b += table[segment + 1, code_at(stream, place + segment + 1, width)]
                c += table[segment + 2, code_at(stream, place + segment + 2, width)]
                d += table[segment + 3, code_at(stream, place + segment + 3, width)]
                segment += 4
            while segment < stop:
                a += table[segment, code_at(stream, place + segment, width)]
                segment += 1
            y[row] += scale[row, group] * (a + b + c + d)


@njit(cache=True, nogil=True)
def planes(x: np.ndarray, signs: np.ndarray, scale: np.ndarray, per_group: int) -> np.ndarray:
    """Σ_p scale_p · sign sums: `x [n, cols]`, `signs [planes, bytes]`, `scale [planes, rows, groups]` to `[n, rows]`."""
    y = np.zeros((len(x), scale.shape[1]), np.float32)
    for i in range(len(x)):
        table = byte_table(x[i])
        for plane in range(len(signs)):
            add_sums(table, signs[plane], 8, scale[plane], per_group, y[i])
    return y


@njit(cache=True, nogil=True)
def codebook(
    x: np.ndarray, stream: np.ndarray, length: int, entries: int, index: np.ndarray, width: int, scale: np.ndarray, per_group: int
) -> np.ndarray:
    """scale · codeword products: `x [n, segments · length]`, indices of `width` bits, `scale [rows, groups]` to `[n, rows]`."""
    y = np.zeros((len(x), len(scale)), np.float32)
    words = codewords(stream, length, entries)
    for i in range(len(x)):
        add_sums(word_table(x[i], words), index, width, scale, per_group, y[i])
    return y
