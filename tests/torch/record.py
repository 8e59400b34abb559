"""What a check found, as JSON, and whether two findings are the same within rounding.

A check returns a mapping from names to values. Tensors and arrays are kept as a checksum of their bytes, sums and a
sample, so that the second run of a check, on the same device through another path, can be compared with the first.
"""

import math
import zlib

# A tensor's element may differ from the other run's by this much of the tensor's largest magnitude. Both runs use the same
# device and the same libraries: what differs is the order of atomic additions and which of several algorithms a library
# timed as fastest. So some roundings of the type are allowed, and none of integers, booleans and texts.
TOLERANCES = {
    "float64": 1e-11,
    "complex128": 1e-11,
    "float32": 2e-5,
    "complex64": 2e-5,
    "float16": 4e-3,
    "bfloat16": 3e-2,
    "float8_e4m3fn": 0.13,
    "float8_e5m2": 0.26,
}
SAMPLE = 96  # elements of a tensor that are kept: enough to see a wrong tile, little enough for a file


class Info:
    """A value that is shown and not compared: a time, a free amount that other processes share in."""

    def __init__(self, value):
        self.value = value


class Near:
    """A value that may differ by another share of its largest magnitude than its type says; the check says why."""

    def __init__(self, value, tolerance):
        self.value, self.tolerance = value, tolerance


def record(value):
    """A value as JSON."""
    if isinstance(value, Info):
        return {"kind": "info", "value": plain(value.value)}
    if isinstance(value, Near):
        return record(value.value) | {"tolerance": value.tolerance}
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return {"kind": "exact", "value": value}
    if isinstance(value, float):
        return {"kind": "number", "value": value, "dtype": "float32"}
    if isinstance(value, (list, tuple)):
        return {"kind": "list", "items": [record(item) for item in value]}
    if isinstance(value, dict):
        return {"kind": "list", "items": [record([name, value[name]]) for name in sorted(value)]}
    if type(value).__module__.partition(".")[0] == "torch":
        return array(*of_torch(value))
    return array(*of_numpy(value))


def plain(value):
    """Something that JSON can hold."""
    return value if isinstance(value, (bool, int, float, str, type(None), list, dict)) else repr(value)


def of_torch(tensor):
    """Type, shape, bytes, and elements as numbers of a tensor."""
    import torch

    dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    content = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    # fp8 has no direct way to double on every build.
    numbers = (tensor.float() if "float8" in dtype else tensor).double().flatten()
    count = numbers.numel()
    if not count:
        return dtype, shape, content, [], 0.0, 0.0
    step = max(1, count // SAMPLE)
    finite = numbers[torch.isfinite(numbers)]
    largest = finite.abs().max().item() if finite.numel() else 0.0
    return dtype, shape, content, numbers[::step][:SAMPLE].tolist(), finite.sum().item(), largest


def of_numpy(value):
    """The same of whatever numpy makes an array of."""
    import numpy

    found = numpy.ascontiguousarray(value)
    dtype, shape, content = str(found.dtype), list(found.shape), found.tobytes()
    if found.dtype.kind == "c":
        found = numpy.stack([found.real, found.imag], -1)
    numbers = found.astype(numpy.float64).ravel()
    if not numbers.size:
        return dtype, shape, content, [], 0.0, 0.0
    finite = numbers[numpy.isfinite(numbers)]
    largest = float(numpy.abs(finite).max()) if finite.size else 0.0
    step = max(1, numbers.size // SAMPLE)
    return dtype, shape, content, numbers[::step][:SAMPLE].tolist(), float(finite.sum()), largest


def array(dtype, shape, content, sample, total, largest):
    """The record of a tensor."""
    return {
        "kind": "array",
        "dtype": dtype,
        "shape": shape,
        "crc": zlib.crc32(content),
        "sample": sample,
        "sum": total,
        "largest": largest,
    }


def apart(one, other, tolerance):
    """Whether two numbers differ by more than `tolerance`; two that are not numbers are alike."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) != math.isnan(other)
    if math.isinf(one) or math.isinf(other):
        return one != other
    return abs(one - other) > tolerance


def difference(native, found):
    """What differs beyond rounding, as a text; empty where nothing does."""
    if native["kind"] != found["kind"]:
        return f"{native['kind']} became {found['kind']}"
    kind = native["kind"]
    if kind == "info":
        return ""
    if kind == "exact":
        same = native["value"] == found["value"]
        return "" if same else f"{native['value']!r} became {found['value']!r}"
    if kind == "list":
        if len(native["items"]) != len(found["items"]):
            return f"{len(native['items'])} items became {len(found['items'])}"
        for index, (one, other) in enumerate(zip(native["items"], found["items"])):
            if text := difference(one, other):
                return f"item {index}: {text}"
        return ""
    share = native.get("tolerance", TOLERANCES.get(native["dtype"], 0.0))
    if kind == "number":
        one, other = native["value"], found["value"]
        return f"{one!r} became {other!r}" if apart(one, other, share * abs(one)) else ""
    for part in ("dtype", "shape"):
        if native[part] != found[part]:
            return f"{part} {native[part]} became {found[part]}"
    if native["crc"] == found["crc"]:
        return ""
    largest = native["largest"]
    for index, (one, other) in enumerate(zip(native["sample"], found["sample"])):
        if apart(one, other, share * largest):
            return f"{native['dtype']} sample {index}: {one!r} became {other!r}, of at most {largest:.6g}"
    # What no sample shows, the sum may: roundings of independent elements grow with the root of their number.
    elements = math.prod(native["shape"])
    if apart(native["sum"], found["sum"], share * largest * max(1.0, math.sqrt(elements))):
        return f"{native['dtype']} sum {native['sum']!r} became {found['sum']!r}"
    if share == 0.0:
        return f"{native['dtype']}: other bytes"
    return ""


def same_bits(native, found):
    """Whether not a bit differs in what is compared."""
    if native["kind"] == "list":
        pairs = zip(native["items"], found["items"])
        return len(native["items"]) == len(found["items"]) and all(same_bits(*pair) for pair in pairs)
    if native["kind"] == "info":
        return True
    names = ("value", "dtype", "shape", "crc")
    return all(native.get(name) == found.get(name) or native.get(name) != native.get(name) for name in names)
