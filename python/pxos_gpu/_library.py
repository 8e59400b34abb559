"""libpxshim.so and the structures of shim/include/pxos.h."""

import ctypes
import os
import threading
from ctypes import c_char, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

SCALAR, HOST, DEVICE = 0, 1, 2
OUT = 1
ASYNC = 1
NOT_READY = 600


class Argument(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("kind", c_uint32),
        ("flags", c_uint32),
        ("data", c_void_p),
        ("value", c_uint64),
        ("length", c_uint64),
    ]


class Options(ctypes.Structure):
    _fields_ = [("elements", c_uint64), ("stream", c_uint64), ("flags", c_uint32), ("reserved", c_uint32)]


class Report(ctypes.Structure):
    _fields_ = [
        ("result", c_int32),
        ("line", c_uint32),
        ("index", c_int64),
        ("submission", c_uint64),
        ("elements", c_uint64),
        ("checks", c_uint32),
        ("checks_left", c_uint32),
        ("devices", c_uint32),
        ("reserved", c_uint32),
        ("bytes_in", c_uint64),
        ("bytes_out", c_uint64),
        ("compile_ms", c_double),
        ("to_device_ms", c_double),
        ("launch_ms", c_double),
        ("kernel_ms", c_double),
        ("to_host_ms", c_double),
        ("total_ms", c_double),
        ("message", c_char * 1024),
    ]


class DeviceStatus(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 128),
        ("capability_major", c_int32),
        ("capability_minor", c_int32),
        ("multiprocessors", c_int32),
        ("software", c_int32),
        ("free", c_uint64),
        ("total", c_uint64),
        ("programs", c_uint64),
        ("running", c_uint64),
    ]


_SIGNATURES = {
    "px_submit_primitive": [
        c_char_p,
        c_size_t,
        c_char_p,
        ctypes.POINTER(Argument),
        c_size_t,
        ctypes.POINTER(Options),
        ctypes.POINTER(Report),
    ],
    "px_query_submission": [c_uint64, c_int, ctypes.POINTER(Report)],
    "px_compile_primitive": [c_char_p, c_size_t, c_char_p, ctypes.POINTER(c_size_t)],
    "px_alloc": [c_size_t, ctypes.POINTER(c_uint64)],
    "px_free": [c_uint64],
    "px_copy_to_device": [c_uint64, c_void_p, c_size_t],
    "px_copy_to_host": [c_void_p, c_uint64, c_size_t],
    "px_query_status": [ctypes.POINTER(DeviceStatus)],
}

_lock = threading.Lock()
_loaded = None


def _open():
    chosen = os.environ.get("PXOS_SHIM")
    # None is the process itself: a preloaded library's functions are found there.
    places = [chosen] if chosen else [None, "libpxshim.so", "libcuda.so.1"]
    tried = []
    for place in places:
        try:
            library = ctypes.CDLL(place)
            library.px_submit_primitive
        except (OSError, AttributeError) as error:
            tried.append(str(error))
            continue
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = types
            function.restype = c_int
        return library
    raise OSError(
        "libpxshim.so was not found; set PXOS_SHIM to its path, or preload it with LD_PRELOAD (" + "; ".join(tried) + ")"
    )


def library():
    """The library, loaded at the first use."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _open()
        return _loaded
