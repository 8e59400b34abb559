"""Small GPU kernels as text, run by pxOS on the host's GPU.

    timing = pxos_gpu.submit_primitive(text, data=array, n=3)

Arrays that the kernel writes hold its results when the call returns. What goes wrong is a :class:`PrimitiveError`.
"""

from ._api import (
    Device,
    DeviceArray,
    Diagnostic,
    PrimitiveError,
    Submission,
    Timing,
    alloc,
    compile_primitive,
    query_status,
    submit_primitive,
)

__all__ = [
    "Device",
    "DeviceArray",
    "Diagnostic",
    "PrimitiveError",
    "Submission",
    "Timing",
    "alloc",
    "compile_primitive",
    "query_status",
    "submit_primitive",
]
__version__ = "0.1.0"
