"""Pickles as data: whatever wrote them is read, and whatever they name is not run."""

import os
import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tl_runner.datasets.pickled import read_pickled
from tl_runner.errors import UserError

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 12) * 10  # has bytes above 127


def written(content: object, protocol: int = 2, name: str = "batch") -> Path:
    Path(name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return Path(name)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("keys", [str, str.encode])
def test_what_python_3_writes_is_read_with_text_for_keys(protocol, keys):
    content = {keys("data"): IMAGES, keys("labels"): [3, 9], keys("name"): "training batch 1 of 5 é"}
    result = read_pickled(written(content, protocol))
    assert list(result) == ["data", "labels", "name"]
    assert result["data"].dtype == np.uint8 and np.array_equal(result["data"], IMAGES)
    assert result["labels"] == [3, 9] and result["name"] == "training batch 1 of 5 é"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
        np.array(["ab", "ü"]),
        np.array([True, False]),
        np.zeros((0, 3072), np.uint8),
        np.arange(20)[::3],
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_plain_values_come_back(array, protocol):
    first, again = read_pickled(written([array, array], protocol))
    assert np.array_equal(first, array) and first.dtype == array.dtype and again is first


def test_nested_numbers_text_and_bytes_come_back():
    content = [1, -1, 2**40, 2**80, 1.5, None, True, False, b"", b"\xff", "", ("a", (1,), (1, 2), ()), [[]], {1: {}}]
    for protocol in range(6):
        expected = [*content[:-1], {"1": {}}]  # all keys are text
        assert read_pickled(written(content, protocol)) == expected
    assert read_pickled(written([*np.arange(3)], 4)) == [0, 1, 2]  # NumPy's own numbers


@pytest.mark.parametrize("home", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_what_python_2_wrote_is_read(home):
    """The opcodes of the published CIFAR-10: strings of bytes, which latin1 stands for."""
    raw = IMAGES.tobytes()
    content = b"".join([
        b"\x80\x02}q\x01(U\x04dataq\x02c", home.encode(),
        b"\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05",
        b"(K\x01K\x02K\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07",
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T", struct.pack("<i", len(raw)), raw, b"tb",
        b"U\x06labelsq\x08]q\x09(K\x06K\x09eU\x0bbatch_labelq\x0aU\x15training batch 1 of 5u.",
    ])  # fmt: skip
    assert pickle.loads(content, encoding="latin1")["labels"] == [6, 9]  # Python agrees that it is one
    result = read_pickled(written(content))
    assert np.array_equal(result["data"], IMAGES) and result["labels"] == [6, 9]


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __repr__(self) -> str:  # the test's name, the same in every process
        return f"{self.reduced[0].__name__}{self.reduced[1]}"

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Call(os.system, "touch ran"), f"{os.name}.system"),
        (Call(eval, "open('ran', 'w')"), r"(builtins|__builtin__)\.eval"),
        (Call(np.ndarray, (10**12,)), "no function"),
        (Call(np.zeros, (10**12,)), r"numpy\.zeros"),
        (Call(bytes, 10**12), "takes 0 positional arguments"),
        (Call(np.dtype, "O"), "an array of type 'O'"),
        (np.array([None, "x"]), "an array of type 'O8'"),
        (np.zeros(2, [("a", "u1"), ("b", "f4")]), "an array of type 'V5'"),
        ({1, 2}, "asks for .*set|FROZENSET|EMPTY_SET"),
        (Path("x"), r"asks for .*path"),
        (3j, r"complex"),
    ],
    ids=str,
)
def test_what_is_no_data_is_refused_by_its_name_and_not_run(content, named, protocol):
    file = written({"data": content}, protocol)
    started = time.monotonic()
    with pytest.raises(UserError, match=f"^batch .*({named})"):
        read_pickled(file)
    assert not Path("ran").exists() and time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"text, not a pickle\n", "can't be read"),
        (b"\x80\x02.", "can't be read"),
        (b"\x80\x02K\x01", "can't be read"),
        (b"\x80\x02]K\x01\x86.", None),
        (b"\x80\x02\x86.", "it takes more than it has put down"),
        (b"\x80\x02K\x01b.", "it takes more"),
        (b"\x80\x02]}R.", "no function"),
        (b"\x80\x02]K\x01Kbb.", "stands where none can be"),
        (b"\x80\x02h\x07.", "can't be read"),
        (b"\x80\x02}]K\x01s.", "a list stands where none can be"),
        (b"\x80\x02}(K\x01u.", "can't be read"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encodes text as 'hex'"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", r"asks for os\.system"),
        (b"(S'touch ran'\nios\nsystem\n.", "operation INST"),
        (b"\x80\x05\x97.", "operation NEXT_BUFFER"),
    ],
)
def test_broken_and_crafted_files_are_refused(content, message):
    file = written(content)
    if message is None:
        assert read_pickled(file) == ([], 1)
        return
    with pytest.raises(UserError, match=f"^batch .*{message}"):
        read_pickled(file)
    assert not Path("ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_refused(protocol):
    whole = pickle.dumps({"data": IMAGES, "labels": [1, 2]}, protocol)
    for end in range(len(whole)):
        with pytest.raises(UserError, match=r"^batch "):
            read_pickled(written(whole[:end]))


def test_no_few_bytes_take_all_memory_or_the_stack():
    array = pickle.dumps({"data": IMAGES}, 2)
    huge = array.replace(b"K\x02K\x0c\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86")
    assert huge != array
    scalar = pickle.dumps(np.uint8(7), 2)
    encode = b"c_codecs\nencode\nq\x00X" + struct.pack("<I", 1000) + b"a" * 1000 + b"q\x01X\x06\x00\x00\x00latin1\x86R"
    crafted = {
        "memo": b"\x80\x02Nr\xff\xff\xff\xff.",  # C's unpickler takes 64 GB for the memo
        "shape": huge,
        "length": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
        "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
        "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",  # hashing it would end the process
        "copies": b"\x80\x02](" + encode + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 10_000 + b"e.",
        "scalar": scalar.replace(b"u1", b"S9"),
    }
    tracemalloc.start()
    for name, content in crafted.items():
        if name in ("memo", "deep"):
            read_pickled(written(content))  # is data, if odd
            continue
        with pytest.raises(UserError, match=r"^batch "):
            read_pickled(written(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
