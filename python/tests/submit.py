"""What the package promises, against a server that the environment names. With numpy where it is installed."""

import array
import struct

import pxos_gpu as px

TEXT = """
GPU_KERNEL add
GPU_PARAM a float[]
GPU_PARAM b float[]
GPU_PARAM out float[]
GPU_PARAM n int
GPU_THREAD_CODE:
    THREAD_ID → tid
    IF tid < n:
        LOAD a[tid] → x
        LOAD b[tid] → y
        ADD x y → sum
        STORE sum → out[tid]
GPU_END

GPU_KERNEL half_scale
GPU_PARAM data half[]
GPU_PARAM by double
GPU_THREAD_CODE:
    PARALLEL FOR data: MUL data float(by) → data
GPU_END
"""


def refused(call, *parts, **fields):
    try:
        call()
    except px.PrimitiveError as error:
        text = str(error)
        assert all(part in text for part in parts), text
        for name, value in fields.items():
            assert getattr(error, name) == value, (name, getattr(error, name))
        return error
    raise AssertionError("it was not refused")


n = 1000
a = array.array("f", range(n))
b = [2.0 * i for i in range(n)]
out = array.array("f", bytes(4 * n))
timing = px.submit_primitive(TEXT, "add", a=a, b=b, out=out, n=n)
assert list(out) == [3.0 * i for i in range(n)]
assert timing.elements == n and timing.bytes_out == 4 * n and timing.total_ms > 0, timing
again = px.submit_primitive(TEXT, kernel="add", a=a, b=b, out=out, n=n)
assert again.compile_ms < 50, again

# Lists and bytearrays get their results in place.
result = [0.0] * 3
px.submit_primitive(TEXT, "add", arguments={"a": [1, 2, 3], "b": (4, 5, 6)}, out=result, n=3)
assert result == [5.0, 7.0, 9.0], result
halves = bytearray(struct.pack("<4e", 1, 2, 3, 4))

WRONG = TEXT.replace("MUL data float(by) → data", "CALCULATE data = data * float(by)")
refused(lambda: px.submit_primitive(WRONG, "half_scale", data=halves, by=0.5), "line ")
SCALE = TEXT
px.submit_primitive(SCALE, "half_scale", data=halves, by=0.5)
assert struct.unpack("<4e", halves) == (0.5, 1, 1.5, 2), struct.unpack("<4e", halves)

# What does not fit is said.
refused(lambda: px.submit_primitive(SCALE, "add", a=a, b=b, out=out), "`n` of kernel `add` is missing")
refused(lambda: px.submit_primitive(SCALE, "add", a=a, b=b, out=bytes(4 * n), n=n), "cannot be written")
refused(lambda: px.submit_primitive(SCALE, "add", a=a, b=b, out=(0.0,), n=n), "tuple")
refused(lambda: px.submit_primitive(SCALE, "add", a=array.array("d", [1]), b=b, out=out, n=n), "'d'")
refused(lambda: px.submit_primitive(SCALE, "add", a=a, b=b, out=out, n=n, x=1), "no parameter `x`")
refused(lambda: px.submit_primitive(SCALE, a=a), "add, half_scale")
refused(lambda: px.submit_primitive(SCALE, "add", a=memoryview(a)[::2], b=b, out=out, n=n), "contiguous")
error = refused(
    lambda: px.submit_primitive(SCALE, "add", a=a[:5], b=b, out=out, n=n), "kernel `add`, line", result=700
)
assert error.line == 10 and error.index >= 5, (error.line, error.index)
error = refused(lambda: px.compile_primitive("GPU_KERNEL k\nGPU_THREAD_CODE:\n    LAOD x → y\nGPU_END\n"), "LOAD")
assert error.diagnostics[0].line == 3 and error.diagnostics[0].code == "unknown-statement"

# Device memory, without waiting.
on_device = [px.alloc("float", n) for _ in range(3)]
on_device[0].write(a)
on_device[1].write(array.array("f", b))
submission = px.submit_primitive(SCALE, "add", a=on_device[0], b=on_device[1], out=on_device[2], n=n, wait=False)
assert submission.wait().elements == n
back = array.array("f", bytes(4 * n))
on_device[2].read(back)
assert list(back) == [3.0 * i for i in range(n)]
on_device[2].free()
refused(
    lambda: px.submit_primitive(SCALE, "add", a=on_device[0], b=on_device[1], out=on_device[2], n=n), "not live"
)

device = px.query_status()
assert device.total >= device.free > 0 and device.name

try:
    import numpy
except ImportError:
    print("without numpy")
else:
    x = numpy.arange(n, dtype=numpy.float32)
    y = numpy.zeros(n, dtype=numpy.float32)
    px.submit_primitive(SCALE, "add", a=x, b=x, out=y, n=n)
    assert (y == 2 * x).all()
    pixels = numpy.arange(16, dtype=numpy.float16)
    px.submit_primitive(SCALE, "half_scale", data=pixels, by=2)
    assert (pixels == 2 * numpy.arange(16)).all()
    refused(lambda: px.submit_primitive(SCALE, "add", a=x[::2], b=x, out=y, n=n), "contiguous")
    # Every element type, arrays of two dimensions, and numpy's own numbers as scalars.
    AXPY = """GPU_KERNEL axpy
GPU_PARAM x T[]
GPU_PARAM y T[]
GPU_PARAM by S
GPU_THREAD_CODE:
    THREAD_ID → t
    STORE y[t] + x[t] * by → y[t]
GPU_END
"""
    for element, scalar, dtype in [
        ("float", "float", numpy.float32),
        ("double", "double", numpy.float64),
        ("half", "float", numpy.float16),
        ("int", "int", numpy.int32),
        ("uint", "uint", numpy.uint32),
        ("byte", "int", numpy.uint8),
    ]:
        text = AXPY.replace("T[]", element + "[]").replace("by S", "by " + scalar)
        x = (numpy.arange(20 * 30) % 50).astype(dtype).reshape(20, 30)
        y = numpy.ones((20, 30), dtype=dtype)
        px.submit_primitive(text, x=x, y=y, by=dtype(3))
        assert (y == (1 + 3 * (numpy.arange(20 * 30) % 50)).reshape(20, 30)).all(), (element, y)
        other = numpy.zeros((20, 30), dtype=numpy.int64 if element != "double" else numpy.float32)
        refused(lambda: px.submit_primitive(text, x=other, y=y, by=3), f"`x` is {element}[]")
        refused(lambda: px.submit_primitive(text, x=x.T, y=y, by=3), "contiguous")
        y.flags.writeable = False
        refused(lambda: px.submit_primitive(text, x=x, y=y, by=3), "cannot be written")
        # What is only read may be read-only.
        px.submit_primitive(text, x=y, y=numpy.zeros((20, 30), dtype=dtype), by=1)
    refused(
        lambda: px.submit_primitive(SCALE, "add", a=x.astype(">f4"), b=b, out=out, n=n), "`a` is float[]"
    )
    empty = numpy.zeros(0, dtype=numpy.float16)
    px.submit_primitive(SCALE, "half_scale", data=empty, by=2)
    print("with numpy", numpy.__version__)
print("all passed")
