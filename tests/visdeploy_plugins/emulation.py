"""The CUDA kernels without a GPU: how tests run them on the host.

`libvisdeploy_emulation.so` (CMake option VISDEPLOY_EMULATION, on in editable installs) holds the CUDA functions of the
C interface, their kernels compiled by the host compiler; loops play grid, warps and blocks. Host memory is its
device memory. A test asks for the fixture `emulation` and calls any function of `native.FUNCTIONS` by its plain name:

    output = np.full(shape, np.nan, np.float32)
    emulation("vd_ms_deform_attn_forward", [*inputs, output])          # writes into output
    emulation("vd_some_op_forward", [x, None, output], params=SomeParams(...))

It shows that a kernel's indices and sums are right. It cannot show races, alignment or launch limits, and sums in one
order what a device sums in many: those are for the `gpu` tests.
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from tests.visdeploy_plugins.support import view
from visdeploy_plugins import native


class Emulation:
    """The emulation library; call it with a function's name and its tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __call__(
        self, function: str, tensors: Sequence[np.ndarray | None], *, params: ctypes.Structure | None = None
    ) -> None:
        views = [None if tensor is None else view(tensor) for tensor in tensors]
        native.call(function, views, params=params, stream=0, library=self.library)


def open_emulation() -> tuple[Emulation | None, str]:
    """Return the emulation, or None and the reason why there is none."""
    path = native.library_path(native.EMULATION)
    if path is None:
        return None, f"{native.EMULATION} was not built (-DVISDEPLOY_EMULATION=ON)"
    library, reason = native.open_library(path)
    return (None if library is None else Emulation(library)), reason
