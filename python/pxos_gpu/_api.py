"""Submissions: Python values to arguments, reports to Python values."""

import ctypes
import json
import struct
from dataclasses import dataclass
from typing import Any, List, Optional

from . import _library
from ._library import DEVICE, HOST, NOT_READY, SCALAR, Argument, DeviceStatus, Options, Report

# Code of an array's elements in the struct module, and of the same in array.array.
_CODES = {"byte": "B", "int": "i", "uint": "I", "float": "f", "double": "d", "half": "e", "pixel": "I"}
# What a buffer may call its elements for each type, beyond the code itself, on machines where int and long are 4 and 8.
_ALIASES = {"byte": "Bbc?", "int": "i", "uint": "I", "float": "f", "double": "d", "half": "eH", "pixel": "IiBb"}


@dataclass(frozen=True)
class Diagnostic:
    """One finding about a text."""

    severity: str
    code: str
    message: str
    line: int
    column: int
    length: int
    expected: tuple = ()
    hint: Optional[str] = None


class PrimitiveError(RuntimeError):
    """A text that is refused, arguments that do not fit, or a kernel that failed.

    ``result`` is a CUresult, ``line`` and ``index`` tell of a thread that left an array, ``diagnostics`` of a text that is
    refused.
    """

    def __init__(self, message, result=1, line=None, index=None, diagnostics=()):
        super().__init__(message)
        self.result = result
        self.line = line
        self.index = index
        self.diagnostics = tuple(diagnostics)


@dataclass(frozen=True)
class Timing:
    """What a submission took, in milliseconds and bytes."""

    elements: int
    devices: int
    bytes_in: int
    bytes_out: int
    compile_ms: float
    to_device_ms: float
    launch_ms: float
    kernel_ms: float
    to_host_ms: float
    total_ms: float
    checks: int
    checks_left: int


@dataclass(frozen=True)
class Device:
    """The current device."""

    name: str
    capability: tuple
    multiprocessors: int
    software: bool
    free: int
    total: int
    programs: int
    running: int


class DeviceArray:
    """Elements in device memory, at an address of this process's (any CUDA library's)."""

    def __init__(self, address: int, length: int, owned: bool = False):
        self.address = address
        self.length = length
        self._owned = owned

    def write(self, data) -> None:
        """Copies a contiguous buffer to the device."""
        with memoryview(data) as view:
            bytes_ = view.cast("B") if view.format != "B" else view
            pointer = (ctypes.c_char * len(bytes_)).from_buffer_copy(bytes_)
            _check(_library.library().px_copy_to_device(self.address, pointer, len(bytes_)))

    def read(self, data) -> None:
        """Copies from the device into a writable contiguous buffer."""
        with memoryview(data) as view:
            pointer = (ctypes.c_char * view.nbytes).from_buffer(view)
            result = _library.library().px_copy_to_host(pointer, self.address, view.nbytes)
            del pointer
        _check(result)

    def free(self) -> None:
        """Gives the memory back; it goes by itself with the object."""
        if self._owned:
            self._owned = False
            _check(_library.library().px_free(self.address))

    def __del__(self):
        try:
            self.free()
        except Exception:  # The process is ending, or the device is gone: nothing is left to free.
            pass


def alloc(type_: str, length: int) -> DeviceArray:
    """Device memory for ``length`` elements of a type of the language."""
    address = ctypes.c_uint64()
    size = struct.calcsize("=" + _CODES[type_])
    _check(_library.library().px_alloc(max(1, length * size), ctypes.byref(address)))
    return DeviceArray(address.value, length, owned=True)


def _check(result: int) -> None:
    if result != 0:
        raise PrimitiveError(f"CUDA error {result}", result)


_compiled = {}


def compile_primitive(text: str) -> dict:
    """Checks and compiles a text on the host; its kernels and their parameters. A text is sent once."""
    known = _compiled.get(text)
    if known is not None:
        return known
    encoded = text.encode()
    library = _library.library()
    size = ctypes.c_size_t(64 << 10)
    while True:
        room = size.value
        buffer = ctypes.create_string_buffer(room)
        result = library.px_compile_primitive(encoded, len(encoded), buffer, ctypes.byref(size))
        if size.value <= room:
            break
    told = buffer.value.decode(errors="replace")
    if result != 0:
        try:
            found = [
                Diagnostic(**{**entry, "expected": tuple(entry.get("expected", ()))}) for entry in json.loads(told)
            ]
        except ValueError:
            raise PrimitiveError(told or f"CUDA error {result}", result) from None
        lines = [f"line {d.line}:{d.column}: {d.message}" + (f" ({d.hint})" if d.hint else "") for d in found]
        raise PrimitiveError("\n".join(lines), result, diagnostics=found)
    program = json.loads(told)
    if len(_compiled) >= 256:
        _compiled.clear()
    _compiled[text] = program
    return program


class Submission:
    """A kernel that was submitted with ``wait=False``."""

    def __init__(self, number: int, keep: List[Any]):
        self.number = number
        self._keep = keep

    def _ask(self, wait: bool) -> Optional[Timing]:
        report = Report()
        result = _library.library().px_query_submission(self.number, int(wait), ctypes.byref(report))
        return None if result == NOT_READY else _timing(result, report)

    def done(self) -> Optional[Timing]:
        """Its timing where it has ended, else None."""
        return self._ask(False)

    def wait(self) -> Timing:
        """Waits for it."""
        timing = self._ask(True)
        assert timing is not None
        return timing


def _timing(result: int, report: Report) -> Timing:
    if result != 0:
        message = report.message.decode(errors="replace") or f"CUDA error {result}"
        line = report.line or None
        raise PrimitiveError(message, result, line, report.index if line else None)
    fields = {name: getattr(report, name) for name in Timing.__dataclass_fields__}
    return Timing(**fields)


class _Held:
    """Arguments as C wants them, and what has to be done when the kernel has run."""

    def __init__(self):
        self.arguments = []
        self.keep = []
        self.lists = []

    def add(self, param: dict, value: Any) -> None:
        name = param["name"].encode()
        self.keep.append(name)
        if not param["array"]:
            self.arguments.append(Argument(name, SCALAR, 0, None, _bits(param, value), 0))
            return
        device = _device_array(param, value)
        if device is not None:
            self.keep.append(value)
            self.arguments.append(Argument(name, DEVICE, 0, None, *device))
            return
        if isinstance(value, (list, tuple)):
            if isinstance(value, tuple) and param["written"]:
                raise PrimitiveError(f"`{param['name']}` is written by the kernel; a tuple cannot hold the result")
            value = self._of_list(param, value)
        self.arguments.append(self._of_buffer(param, name, value))

    def _of_list(self, param: dict, values) -> Any:
        code = "=" + _CODES[param["type"]]
        try:
            packed = bytearray(struct.pack(f"={len(values)}{code[1]}", *values))
        except struct.error as error:
            raise PrimitiveError(f"`{param['name']}` is {param['type']}[]: {error}") from None
        if param["written"]:
            self.lists.append((values, packed, code[1]))
        return packed

    def _of_buffer(self, param: dict, name: bytes, value: Any) -> Argument:
        what = f"`{param['name']}` is {param['type']}[]"
        size = struct.calcsize("=" + _CODES[param["type"]])
        try:
            view = memoryview(value)
        except TypeError:
            raise PrimitiveError(f"{what}: a {type(value).__name__} is no array") from None
        if not view.c_contiguous:
            raise PrimitiveError(f"{what}: the array is not contiguous; copy it first")
        if param["written"] and view.readonly:
            raise PrimitiveError(f"{what} and written by the kernel: the array cannot be written")
        code = view.format.lstrip("@=<")
        of_bytes = code in ("B", "b", "c")
        fits = code in _ALIASES[param["type"]] or of_bytes or (code in ("l", "L") and view.itemsize == size)
        if not fits or view.nbytes % size:
            raise PrimitiveError(f"{what}: the array holds '{view.format}', {view.nbytes} bytes")
        self.keep.append(view)
        if view.nbytes == 0:
            return Argument(name, HOST, 0, None, 0, 0)
        if view.readonly:
            # ctypes gives no address of what cannot be written.
            copy = ctypes.create_string_buffer(bytes(view), view.nbytes)
            self.keep.append(copy)
            address = ctypes.addressof(copy)
        else:
            whole = (ctypes.c_char * view.nbytes).from_buffer(view)
            self.keep.append(whole)
            address = ctypes.addressof(whole)
        return Argument(name, HOST, 0, address, 0, view.nbytes // size)

    def bring_back(self) -> None:
        for values, packed, code in self.lists:
            values[:] = struct.unpack(f"={len(values)}{code}", packed)


def _device_array(param: dict, value: Any):
    if isinstance(value, DeviceArray):
        return value.address, value.length
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
        return None
    if interface.get("strides") is not None:
        raise PrimitiveError(f"`{param['name']}`: the device array is not contiguous")
    elements = 1
    for side in interface["shape"]:
        elements *= side
    size = struct.calcsize("=" + _CODES[param["type"]])
    held = int(interface["typestr"][2:])
    return interface["data"][0], elements * held // size


def _bits(param: dict, value: Any) -> int:
    code = "=" + _CODES[param["type"]]
    try:
        raw = struct.pack(code, float(value) if code[1] in "fde" else int(value))
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise PrimitiveError(f"`{param['name']}` is {param['type']}: {error}") from None
    return int.from_bytes(raw, "little")


def submit_primitive(
    text: str,
    kernel: Optional[str] = None,
    *,
    elements: int = 0,
    stream: int = 0,
    wait: bool = True,
    arguments: Optional[dict] = None,
    **values: Any,
):
    """Runs a kernel of ``text`` with arguments by the names of its parameters.

    Arrays may be numpy arrays or any contiguous buffer of the parameter's type, lists, :class:`DeviceArray`, or device
    arrays of other libraries; those that the kernel writes hold the results afterwards. ``arguments`` passes parameters
    whose names are taken here. Gives a :class:`Timing`, or with ``wait=False`` (device arrays only) a
    :class:`Submission`.
    """
    program = compile_primitive(text)
    kernels = program["kernels"]
    found = [k for k in kernels if kernel is None or k["name"] == kernel]
    if len(found) != 1:
        names = ", ".join(k["name"] for k in kernels)
        raise PrimitiveError(f"which kernel? The program has {names or 'none'}")
    given = {**(arguments or {}), **values}
    held = _Held()
    for param in found[0]["params"]:
        if param["name"] not in given:
            raise PrimitiveError(f"`{param['name']}` of kernel `{found[0]['name']}` is missing")
        held.add(param, given.pop(param["name"]))
    if given:
        raise PrimitiveError(f"kernel `{found[0]['name']}` has no parameter `{next(iter(given))}`")
    encoded = text.encode()
    array_ = (Argument * len(held.arguments))(*held.arguments)
    options = Options(elements, stream, 0 if wait else _library.ASYNC, 0)
    report = Report()
    result = _library.library().px_submit_primitive(
        encoded,
        len(encoded),
        found[0]["name"].encode(),
        array_,
        len(held.arguments),
        ctypes.byref(options),
        ctypes.byref(report),
    )
    if not wait and result == NOT_READY:
        return Submission(report.submission, held.keep)
    timing = _timing(result, report)
    held.bring_back()
    return timing


def query_status() -> Device:
    """The current device."""
    status = DeviceStatus()
    _check(_library.library().px_query_status(ctypes.byref(status)))
    return Device(
        name=status.name.decode(errors="replace"),
        capability=(status.capability_major, status.capability_minor),
        multiprocessors=status.multiprocessors,
        software=bool(status.software),
        free=status.free,
        total=status.total,
        programs=status.programs,
        running=status.running,
    )
