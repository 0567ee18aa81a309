"""bfloat16 in HDF5: two bytes on disk that any reader sees as float32.

The file type is an IEEE float of 1 sign, 8 exponent and 7 mantissa bits, so HDF5 itself converts
it. Its conversion is slow; the library moves the raw words instead and shifts them here.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError

WORDS = np.dtype("<u2")
_INFINITY = 0x7F800000  # bits of float32; NaN are above
_TOO_LARGE = 0x7F7F8000  # half a step above the largest bfloat16: it rounds to infinity
_BLOCK = 1 << 16  # values at a time, so that what is between stays in the cache


def _file_type() -> Any:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)  # sign at bit 15; 8 bits of exponent from 7; 7 of mantissa
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


TYPE = _file_type()


def encode(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 words, ties to even; exact where the values are bfloat16 already.

    Raises:
        StoreError: a finite value is too large, and would have become infinite.
    """
    bits = np.ascontiguousarray(values, dtype="<f4").view(np.uint32).reshape(-1)
    words = np.empty(bits.shape, WORDS)
    for first in range(0, len(bits), _BLOCK):
        block = slice(first, first + _BLOCK)
        words[block] = _rounded(bits[block])
    return words.reshape(values.shape)


def _rounded(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """bfloat16 words of float32 bits."""
    # Adding 0x7fff, and one more where the kept part is odd, carries exactly when it must round up.
    words: NDArray[np.uint32] = bits >> np.uint32(16)
    words &= 1
    words += 0x7FFF
    words += bits
    words >>= 16
    size = bits & 0x7FFFFFFF
    if size.max() < _TOO_LARGE:
        return words
    if np.any((size >= _TOO_LARGE) & (size < _INFINITY)):
        largest = size[size < _INFINITY].max().view(np.float32)
        raise StoreError(
            f"a state of {largest:.4g} is too large for bfloat16; store float32 "
            "(--store-dtype float32)"
        )
    # Infinity and NaN keep their upper half; a NaN whose mark is in the lower half gets a new one.
    top: NDArray[np.uint32] = bits >> np.uint32(16)
    top[(size > _INFINITY) & ((top & 0x7F) == 0)] |= 0x40
    words[size >= _INFINITY] = top[size >= _INFINITY]
    return words


def decode(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 words; always exact."""
    wide = words.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
