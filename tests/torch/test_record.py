"""That the comparison can fail: python3 -m unittest discover tests/torch"""

import array
import unittest

from record import array as recorded
from record import Info, Near, difference, record, same_bits


def tensor(values, dtype="float32"):
    """The record of a vector."""
    content = array.array("d", values).tobytes()
    return recorded(dtype, [len(values)], content, list(values), sum(values), max(map(abs, values)))


class Comparison(unittest.TestCase):
    def test_roundings_pass_and_errors_do_not(self):
        native = tensor([1.0, -2.0, 3.0])
        self.assertEqual(difference(native, tensor([1.0, -2.0, 3.0 + 1e-5])), "")
        self.assertFalse(same_bits(native, tensor([1.0, -2.0, 3.0 + 1e-5])))
        self.assertIn("sample 2", difference(native, tensor([1.0, -2.0, 3.001])))
        self.assertIn("shape", difference(native, tensor([1.0, -2.0])))
        self.assertIn("dtype", difference(native, tensor([1.0, -2.0, 3.0], "float64")))

    def test_what_no_sample_shows_the_sum_does(self):
        native, other = tensor([1.0, 2.0]), tensor([1.0, 2.0])
        other["crc"], other["sum"] = 0, 4.0
        self.assertIn("sum", difference(native, other))

    def test_integers_have_no_roundings(self):
        native, other = tensor([1, 2], "int32"), tensor([1, 2], "int32")
        other["crc"] = 0
        self.assertIn("other bytes", difference(native, other))

    def test_no_numbers_are_alike_and_infinities_are_not(self):
        nan, infinity = float("nan"), float("inf")
        self.assertEqual(difference(record(nan), record(nan)), "")
        self.assertNotEqual(difference(record(nan), record(1.0)), "")
        self.assertNotEqual(difference(record(infinity), record(-infinity)), "")

    def test_texts_lists_and_what_is_only_shown(self):
        self.assertEqual(difference(record([1, "a"]), record([1, "a"])), "")
        self.assertIn("item 1", difference(record([1, "a"]), record([1, "b"])))
        self.assertEqual(difference(record(Info(1.5)), record(Info(7))), "")
        self.assertEqual(difference(record(Near(1.0, 0.1)), record(Near(1.05, 0.1))), "")


if __name__ == "__main__":
    unittest.main()
