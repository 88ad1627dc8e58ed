"""16-bit floats to float32 and back, on their bits: `bits` and `values` are the same memory as uint32 and as float32.

Neither compiler has both types on every machine (Numba has no float16 on CPUs, gcc no bfloat16 before 13); on integers the loops vectorize
everywhere. Rounding is to the nearest, ties to even; NaN stays NaN, and what is too large becomes infinite.
"""

from normfast.kernels.primitives import *

WORDS = 256  # written past the caches at once


def widen(source, n, bfloat, bits, values):
    """n words of bfloat16, or of float16, as float32."""
    if bfloat:
        widen_bfloat16(source, n, bits)
    else:
        widen_float16(source, n, bits, values)


def store(bits, values, n, bfloat, work_bits, work, following, y, streamed, words):
    """Round n values to words of y; past the caches if `streamed`, through `words`, and the words `following` are asked for then.

    work is space for n values, words for WORDS of them.
    """
    left = 0
    m = lead(y, n) if streamed else n
    while left < n:
        target = words if streamed else y
        if bfloat:
            narrow_bfloat16(chunk(bits, left, left + m), m, target)
        else:
            narrow_float16(chunk(bits, left, left + m), chunk(values, left, left + m), m, work_bits, work, target)
        if streamed:
            prefetch(chunk(following, left, left + m), m)
            stream(words, m, chunk(y, left, left + m))
        left += m
        m = min(n - left, WORDS)


def widen_bfloat16(source, n, bits):
    """bfloat16 is the upper half of a float32."""
    for j in range(n):
        bits[j] = uint32(source[j]) << uint32(16)


def narrow_bfloat16(bits, n, target):
    """Round the lower half away."""
    for j in range(bfloat16_lanes(bits, n, target), n):
        u = bits[j]
        rounded = (u + uint32(0x7FFF) + ((u >> uint32(16)) & uint32(1))) >> uint32(16)
        target[j] = (u >> uint32(16)) | uint32(64) if (u & uint32(0x7FFFFFFF)) > uint32(0x7F800000) else rounded


def widen_float16(source, n, bits, values):
    """The exponent is moved by a multiplication, which makes subnormal numbers normal."""
    for j in range(n):
        bits[j] = (uint32(source[j]) & uint32(0x7FFF)) << uint32(13)
    for j in range(n):
        values[j] *= cast(5.192296858534828e33, values[j])  # 2**112
    for j in range(n):
        h = uint32(source[j])
        top = uint32(0x7F800000) if (h & uint32(0x7C00)) == uint32(0x7C00) else uint32(0)
        bits[j] |= ((h & uint32(0x8000)) << uint32(16)) | top


def narrow_float16(bits, values, n, work_bits, work, target):
    """Below 2**-14 the result is subnormal: adding 0.5 leaves its bits, rounded, at the end of the sum. work is space for n values."""
    for j in range(n):
        work[j] = abs(values[j]) + cast(0.5, values[j])
    for j in range(n):
        u = bits[j] & uint32(0x7FFFFFFF)
        sign = (bits[j] >> uint32(16)) & uint32(0x8000)
        normal = (u + uint32(0xFFF) + ((u >> uint32(13)) & uint32(1)) - uint32(0x38000000)) >> uint32(13)
        h = work_bits[j] - uint32(0x3F000000) if u < uint32(0x38800000) else normal
        h = uint32(0x7C00) if u >= uint32(0x477FF000) else h
        h = uint32(0x7E00) if u > uint32(0x7F800000) else h
        work_bits[j] = sign | h
    for j in range(n):  # apart: gcc does not vectorize the loop above when it ends in 16 bits
        target[j] = work_bits[j]
