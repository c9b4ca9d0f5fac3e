"""Helpers of the frozen dataclasses: read-only arrays of a checked shape."""

from __future__ import annotations

import numpy as np

from loftr_ros.errors import InputError


def checked_array(name: str, value, shape: tuple[int | None, ...], dtype) -> np.ndarray:
    """Return `value` as a read-only array of `dtype`, or say what is wrong with its shape (None: any length)."""
    array = np.array(value, dtype=dtype, copy=True)
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = '(' + ', '.join('N' if n is None else str(n) for n in shape) + ')'
        raise InputError(f'{name} must have shape {wanted}, got {array.shape}')
    array.flags.writeable = False
    return array


def set_fields(instance, **values) -> None:
    """Set fields of a frozen dataclass; only for its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
