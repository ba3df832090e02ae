"""Compiled kernels: an optimisation, never a requirement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    import numba
except ImportError:  # each user of kernels has another form of them
    numba = None

AVAILABLE = numba is not None
"""Whether kernels are compiled here. Where they are not, as plain Python, they are too slow to be of use."""

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(kernel: _Kernel) -> _Kernel:
    """Compile on first use, in some seconds, keeping the machine code beside the source where that can be written.

    Compiled kernels let go of the interpreter's lock, so that they run beside each other in threads.
    """
    if numba is None:
        return kernel
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # numba found no folder for its cache, such as in a read-only image
        return numba.njit(**options)(kernel)
