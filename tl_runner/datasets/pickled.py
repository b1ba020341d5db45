"""Pickles of arrays read as data: nothing is imported or called that a file names.

A pickle is a program for a stack machine. The machine here knows lists, tuples, dicts, numbers, strings, bytes
and NumPy arrays of these, as Python 2 and 3 and NumPy of any version write them, and refuses all else. Python's
own `pickle.Unpickler` would do with `find_class` overridden, but a few bytes can make it take all memory.
"""

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tl_runner.errors import UserError

PLAIN = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4})")  # types of items that are values, not objects
HOMES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


def read_pickled(file: Path) -> Any:
    """What a pickle holds, the keys of its dicts as text; raises `UserError`, naming the file.

    Arrays are views of the file's bytes, and can't be written to.
    """
    try:
        return _Machine(file.read_bytes()).run()
    except UserError as error:
        raise UserError(f"{file} {error}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, MemoryError) as error:
        raise UserError(f"{file} can't be read as a pickle of arrays: {error or 'it ends too early'}") from error


class _Unbuilt:
    """An array or its type between the call that announces it and the BUILD that says what it is."""

    def __init__(self, finish: Callable[[Any], Any]):
        self.finish = finish
        self.memos: list[int] = []  # where the finished thing has to take its place


class _Machine:
    def __init__(self, data: bytes):
        self.data = data
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.made = 0  # bytes

    def run(self) -> Any:
        for operation, argument, _ in pickletools.genops(self.data):
            name = operation.name
            if name in VALUES:
                self.stack.append(argument)
            elif name in STEPS:
                STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise UserError(f"uses the pickle operation {name}, which arrays of numbers have no need of")
        return self.stack.pop()

    def last(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise ValueError("it takes more than it has put down")
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    def marked(self) -> list[Any]:
        return self.last(max(0, len(self.stack) - self.marks.pop()))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]
        if isinstance(self.stack[-1], _Unbuilt):
            self.stack[-1].memos.append(index)

    def add(self, items: list[Any]) -> None:
        _is(list, self.stack[-1]).extend(items)

    def set(self, items: list[Any]) -> None:
        _is(dict, self.stack[-1]).update(_pairs(items))

    def name(self, module: str, name: str) -> None:
        known = GLOBALS.get(name if module in HOMES else f"{module}.{name}")
        if known is None:
            raise UserError(
                f"asks for {module}.{name}: only arrays, lists, tuples, dicts, numbers, strings and bytes are read"
            )
        self.stack.append(known)

    def reduce(self) -> None:
        function, arguments = self.last(2)
        if not callable(function):
            raise TypeError(f"it calls {type(function).__name__}, which is no function")
        self.push(function(*_is(tuple, arguments)))

    def build(self) -> None:
        unbuilt, state = self.last(2)
        self.push(_is(_Unbuilt, unbuilt).finish(state))
        for index in unbuilt.memos:
            self.memo[index] = self.stack[-1]

    def push(self, made: Any) -> None:
        self.made += len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
        if self.made > 2 * len(self.data):  # once as bytes, once as an array
            raise UserError("makes more data than it holds")
        self.stack.append(made)


def _is(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__.strip('_').lower()} stands where none can be")
    return value


def _pairs(items: list[Any]) -> dict[str, Any]:
    keys = [key.decode("latin1") if isinstance(key, bytes) else key for key in items[::2]]
    return {str(_is((str, int), key)): value for key, value in zip(keys, items[1::2], strict=True)}


def _array(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote bytes
    dtype, shape = _is(np.dtype, dtype), tuple(_is(int, side) for side in _is(tuple, shape))
    if len(_is((bytes, bytearray), raw)) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} does not have {len(raw)} bytes")
    return np.ndarray(shape, dtype, buffer=raw, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Unbuilt:
    """`numpy._core.multiarray._reconstruct`: the array is what BUILD says, (version, shape, type, Fortran, bytes)."""
    return _Unbuilt(lambda state: _array(state[-1], state[-3], state[-4], "F" if state[-2] else "C"))


def _dtype(code: Any, *_: Any) -> _Unbuilt:
    """`numpy.dtype`, of plain values; BUILD says (version, byte order, None, None, None, …)."""
    code = code.decode("latin1") if isinstance(code, bytes) else code
    if not PLAIN.fullmatch(_is(str, code)):
        raise UserError(f"has an array of type {code!r}: only numbers and text are read")

    def finish(state: Any) -> np.dtype:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">", "=") or any(part is not None for part in state[2:5]):
            raise UserError("has an array of records: only numbers and text are read")
        return np.dtype(code).newbyteorder(order)

    return _Unbuilt(finish)


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, ()).item()


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise UserError(f"encodes text as {encoding!r}: only latin1 is read")
    return _is(str, text).encode("latin1")


def _no_bytes() -> bytes:
    return b""


GLOBALS: dict[str, Any] = {
    "numpy.ndarray": "ndarray",  # named as an argument of _reconstruct; no file may call it
    "numpy.dtype": _dtype,
    "_reconstruct": _reconstruct,
    "_frombuffer": _array,
    "scalar": _scalar,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
}
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "DICT": lambda m, _: m.stack.append(_pairs(m.marked())),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.last(3))),
    "APPEND": lambda m, _: m.add(m.last(1)),
    "APPENDS": lambda m, _: m.add(m.marked()),
    "SETITEM": lambda m, _: m.set(m.last(2)),
    "SETITEMS": lambda m, _: m.set(m.marked()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.last(2)),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
