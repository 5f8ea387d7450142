"""The two Triton kernels: table lookups for small batches, and tiles decoded for tensor cores for larger ones.

Both give partial sums `y [splits, inputs, rows]` in float32: where rows alone do not fill the GPU, columns are split too. What
stands for weights is stored `[…, rows]`, so that neighbouring threads read neighbouring bytes.
"""
# mypy: disable-error-code="no-untyped-def"
# (Triton would compile the names of types)

import triton
import triton.language as tl

SIGNS, INDICES, CODES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what `multiply` decodes


@triton.jit
def look_up(
    table,
    index,
    scale,
    y,
    inputs,
    rows,
    segments,
    total,
    groups,
    group_segments,
    scalings,
    share,
    ENTRIES: tl.constexpr,
    ROWS: tl.constexpr,
    TOGETHER: tl.constexpr,
) -> None:
    """One input: Σ scale · table[segment, index], over all `total` = planes · segments.

    `table [inputs · scalings, segments, ENTRIES]` float32: every pattern's sum of the inputs of a segment, where `scalings` is 1
    or the number of planes. `index [total, rows]` integers, `scale [planes · groups, rows]`. A program takes ROWS rows and
    `share` segments, TOGETHER at a time, which lie in one group; their tables go through shared memory.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slice_id, i = tl.program_id(1), tl.program_id(2)
    entry = tl.arange(0, ENTRIES)
    sums = tl.zeros([ROWS], tl.float32)
    for first in range(slice_id * share, tl.minimum(slice_id * share + share, total), TOGETHER):
        flat = first + tl.arange(0, TOGETHER)
        plane = first // segments
        source = i * scalings + tl.where(scalings > 1, plane, 0)
        at = source * segments + flat - plane * segments
        sums_of = tl.load(table + at.to(tl.int64)[:, None] * ENTRIES + entry[None, :])
        indices = tl.load(index + flat.to(tl.int64)[:, None] * rows + row[None, :], mask=row[None, :] < rows, other=0)
        part = tl.sum(tl.gather(sums_of, indices.to(tl.int32), 1), 0)
        group = plane * groups + (first - plane * segments) // group_segments
        sums += part * tl.load(scale + group * rows + row, mask=row < rows, other=0.0).to(tl.float32)
    tl.store(y + (slice_id * inputs + i) * rows + row, sums, mask=row < rows)


@triton.jit
def multiply(
    x,
    codes,
    words,
    scale,
    zero,
    y,
    inputs,
    rows,
    cols,
    segments,
    groups,
    span,
    scalings,
    tiles,
    total,
    share,
    FORM: tl.constexpr,
    LENGTH: tl.constexpr,
    BITS: tl.constexpr,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
) -> None:
    """INPUTS × ROWS sums: tiles of COLS columns decoded to the type of `x [inputs · scalings, cols]`, times x by tensor cores.

    `codes [planes · segments, rows]`: bytes of 8 signs (SIGNS), indices into `words`, integers whose bit j is sign j of LENGTH
    (INDICES), or bytes of 8 / BITS codes, of value code − `zero [groups, rows]` (CODES). `scale [planes · groups, rows]`. There
    are `total` = planes · `tiles` tiles, and a program takes `share` of them; a tile lies in one group of `span` columns.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    slice_id = tl.program_id(2)
    real = row[None, :] < rows
    sums = tl.zeros([INPUTS, ROWS], tl.float32)
    for tile in range(slice_id * share, tl.minimum(slice_id * share + share, total)):
        plane = tile // tiles
        start = (tile - plane * tiles) * COLS
        column = start + tl.arange(0, COLS)
        source = i * scalings + tl.where(scalings > 1, plane, 0)
        loaded = tl.load(
            x + source.to(tl.int64)[:, None] * cols + column[None, :],
            mask=(i < inputs)[:, None] & (column < cols)[None, :],
            other=0.0,
        )
        group = plane * groups + start // span
        first = plane * segments
        if FORM == INDICES:
            at = (first + tl.minimum(column // LENGTH, segments - 1)).to(tl.int64)[:, None] * rows + row[None, :]
            word = tl.load(words + tl.load(codes + at, mask=real, other=0).to(tl.int32))
            value = ((word >> (column % LENGTH)[:, None]) & 1) * 2 - 1
        else:
            PER: tl.constexpr = 8 // BITS
            segment = start // PER + tl.arange(0, COLS // PER)
            at = (first + segment).to(tl.int64)[:, None] * rows + row[None, :]
            byte = tl.load(codes + at, mask=(segment < segments)[:, None] & real, other=0).to(tl.int32)
            apart = (byte[:, None, :] >> (tl.arange(0, PER) * BITS)[None, :, None]) & ((1 << BITS) - 1)
            value = tl.reshape(apart, (COLS, ROWS))
            if FORM == CODES:
                value = value - tl.load(zero + group * rows + row, mask=row < rows, other=0).to(tl.int32)[None, :]
            else:
                value = value * 2 - 1
        part = tl.dot(loaded, value.to(loaded.dtype), input_precision="ieee")
        sums += part * tl.load(scale + group * rows + row, mask=row < rows, other=0.0).to(tl.float32)[None, :]
    at = (slice_id * inputs + i).to(tl.int64)[:, None] * rows + row[None, :]
    tl.store(y + at, sums, mask=(i < inputs)[:, None] & real)
