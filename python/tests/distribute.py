"""A program that says GPU_DISTRIBUTE uses every GPU of the VM, and one that does not uses one."""

import array

import pxos_gpu as px

TEXT = """GPU_KERNEL scale
GPU_PARAM data float[]
GPU_PARAM number int[]
GPU_THREAD_CODE:
    THREAD_ID → t
    LOAD data[t] → x
    STORE t → number[t]
    MUL x 2.0 → y
    STORE y → data[t]
GPU_END
"""
n = 300_001
for text, devices in [(TEXT, 1), ("GPU_DISTRIBUTE strategy=auto\n" + TEXT, 2)]:
    data, number = array.array("f", range(n)), array.array("i", bytes(4 * n))
    timing = px.submit_primitive(text, data=data, number=number)
    assert (timing.devices, timing.elements) == (devices, n), timing
    # Each part of each array travels once.
    assert (timing.bytes_in, timing.bytes_out) == (8 * n, 8 * n), timing
    assert list(number) == list(range(n)) and list(data) == [2.0 * i for i in range(n)]
print("all passed")
