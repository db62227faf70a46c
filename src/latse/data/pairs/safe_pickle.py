"""Reads the pickles that hold verification pairs, and no others, without running anything in them.

A pickle is a program for a small stack machine. This module interprets the part of its instructions that
lists of encoded images and flags need, as Python 2 and 3 write them in protocols 0 to 5: lists, tuples,
numbers, text, bytes, and numpy's numbers and arrays of them or of objects. Python's own unpickler is not
used, not even a restricted one: it believes lengths and positions that the file only claims. Here memory and
time are bounded by the file's size: byte strings are views of the file, instructions that make objects and
bytes made of text are counted, whole numbers have 64 bits, nothing recurses.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import pickletools
import re
import struct
from types import FunctionType
from typing import Any, Callable

import numpy as np

# Any instruction has a byte at least, so time needs no other limit; but a byte can make an object of sixty.
# An image of 112x112 pixels takes some 600 bytes or more and at most some 40 instructions.
FREE_OBJECTS = 100_000
BYTES_PER_OBJECT = 16
NEWEST_PROTOCOL = 5
_EMPTY, _LATIN1 = memoryview(b""), memoryview(b"latin1")


class PickleError(ValueError):
    """The pickle is damaged or asks for something else than data; its text says what."""


class Text:
    """Text of a pickle, not decoded before it is needed: raw bytes and their codec."""

    __slots__ = ("codec", "raw")

    def __init__(self, raw: memoryview, codec: str = "utf-8"):
        self.raw, self.codec = raw, codec

    def __str__(self) -> str:
        try:
            return str(self.raw, self.codec, "surrogatepass" if self.codec == "utf-8" else "strict")
        except ValueError as error:
            raise PickleError(f"a text in it is not {self.codec}") from error


class Array:
    """A numpy array in one row: its numpy.dtype, of numbers or objects, and its bytes or the list of objects.

    At first it holds no object.
    """

    __slots__ = ("data", "dtype")

    def __init__(self):
        self.dtype = np.dtype(object)
        self.data: memoryview | list = []

    def tolist(self) -> list:
        """Return the elements: bool, int, float (longdouble as numpy's), or the objects."""
        return self.data if isinstance(self.data, list) else np.frombuffer(self.data, self.dtype).tolist()


class NdArray:
    """numpy.ndarray, which a pickle names but never calls."""


class Dtype:
    """A numpy.dtype, to which a pickle gives its byte order later."""

    __slots__ = ("dtype",)

    def __init__(self, name: str):
        self.dtype = np.dtype(name)


def load_pickle(content: bytes | bytearray) -> Any:
    """Return the object that a pickle holds; what follows the pickle is ignored.

    Lists, tuples, bool, int (64 bits), float and None come as they are; bytes, bytearray and Python 2's str
    as memoryview, the same one wherever the pickle refers to the same string; other text as Text; numpy
    arrays as Array; numpy's scalars as bool, int or float (longdouble as numpy's). `content` must not change
    while the result is in use.

    Raises PickleError if the pickle is damaged or holds anything else.
    """
    return _Machine(content).run()


class _Machine:
    def __init__(self, content: bytes | bytearray):
        self.content, self.view = content, memoryview(content).toreadonly()
        self.at = 0  # of the next byte
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.bytes_left = len(content)  # that may still be made of text
        self.objects_left = FREE_OBJECTS + len(content) // BYTES_PER_OBJECT  # that may still be made

    def run(self) -> Any:
        while (code := self.take(1)[0]) != _STOP:
            name = _NAMES.get(code)
            if name is None:
                raise PickleError(f"it is no pickle: byte {self.at - 1} is {code}")
            if name not in _DEEDS:
                raise PickleError(f"it uses {name}, which is refused")
            self.objects_left -= name not in _SPARING
            if self.objects_left < 0:
                raise PickleError("it makes more objects than a set of images needs")
            _DEEDS[name](self)
        return self.pop()

    def take(self, length: int) -> memoryview:
        part = self.view[self.at : self.at + length]
        if len(part) < length:
            raise PickleError("it is cut off")
        self.at += length
        return part

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def sized(self, size: int) -> memoryview:
        """Return the bytes that follow their number, which is of `size` bytes."""
        return self.take(self.number(size))

    def line(self) -> memoryview:
        end = self.content.find(b"\n", self.at)
        if end < 0:
            raise PickleError("it is cut off")
        return self.take(end + 1 - self.at)[:-1]

    def decimal(self) -> int:
        line = self.line()
        if len(line) > 21 or not re.fullmatch(rb"[+-]?[0-9]{1,19}L?", line):
            raise PickleError("it holds a number that is none or too large")
        flags = {b"00": False, b"01": True}  # of protocol 0
        return flags.get(bytes(line), int(bytes(line).rstrip(b"L")))

    def decimal_fraction(self) -> float:
        line = self.line()
        if len(line) <= 32 and re.fullmatch(rb"[+-]?([0-9.]+(e[+-]?[0-9]+)?|inf|nan)", line):
            with contextlib.suppress(ValueError):
                return float(bytes(line))
        raise PickleError("it holds a number that is none or too large")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise PickleError("it takes more from its stack than there is")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marked:
            raise PickleError("it goes back to a mark that it has not set")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def top(self, kind: Any) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise PickleError("it changes what is not there")
        return self.stack[-1]

    # Instructions, by what they do to the stack.

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def protocol(self) -> None:
        version = self.number(1)
        if version > NEWEST_PROTOCOL:
            raise PickleError(f"protocol {version} is refused; the newest is {NEWEST_PROTOCOL}")

    def frame(self) -> None:
        if self.number(8) > len(self.content) - self.at:
            raise PickleError("it is cut off")

    def long_integer(self, size: int) -> None:
        length = self.number(size)
        if length > 8:
            raise PickleError(f"a number of {length} bytes is refused")
        self.push(self.number(length, signed=True))

    def quoted_line(self) -> None:
        line = bytes(self.line())
        if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
            raise PickleError("it holds a string without quotes")
        try:
            self.push(memoryview(codecs.escape_decode(line[1:-1])[0]))
        except ValueError as error:
            raise PickleError("it holds a string with a wrong escape") from error

    def tuple_of(self, length: int) -> None:
        self.push(tuple([self.pop() for _ in range(length)][::-1]))

    def append(self) -> None:
        item = self.pop()
        self.top(list).append(item)

    def append_all(self) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def put(self, key: int) -> None:
        self.memo[key] = self.top(object)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise PickleError("it remembers what it has not stored")
        self.push(self.memo[key])

    def look_up(self, name: Any, module: Any) -> None:
        if not isinstance(module, Text) or not isinstance(name, Text):
            raise PickleError("it asks for a name that is no text")
        module, name = str(module), str(name)
        known = {"__builtin__": "builtins"}.get(module, module).replace("numpy._core", "numpy.core")
        if (known, name) not in _GLOBALS:
            raise PickleError(f"it asks for {_shown(f'{module}.{name}')}, which is refused")
        self.push(_GLOBALS[known, name])

    def instance_of_lines(self) -> None:
        self.look_up(module=Text(self.line()), name=Text(self.line()))
        raise PickleError("it uses INST, which is refused")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, FunctionType):  # of _GLOBALS: nothing else puts one on the stack
            raise PickleError(f"it calls {described(function)}, which is refused")
        if not isinstance(arguments, tuple):
            raise PickleError(f"it calls a function with {described(arguments)}")
        self.push(function(self, *arguments[:6]))

    def build(self) -> None:
        state, target = self.pop(), self.top(object)
        if isinstance(target, Array):
            _fill(target, state)
        elif isinstance(target, Dtype):
            _order(target, state)
        else:
            raise PickleError(f"it sets the state of {described(target)}, which is refused")

    # Functions that a pickle may call.

    def as_bytes(self, data: Any = _EMPTY, encoding: Any = _LATIN1, *_: Any) -> memoryview:
        """Return bytes as protocol 2 stores them: text that is encoded again on loading."""
        if isinstance(data, memoryview):
            return data
        if not isinstance(data, Text):
            raise PickleError(f"bytes made of {described(data)} are refused")
        name = _name(encoding)
        if name not in ("latin1", "latin-1"):
            raise PickleError(f"the encoding {_shown(name)} is refused")
        self.bytes_left -= len(data.raw)
        if self.bytes_left < 0:
            raise PickleError("it makes more bytes than the file has")
        try:
            return memoryview(str(data).encode("latin1"))
        except UnicodeEncodeError as error:
            raise PickleError("bytes made of text that is not latin1 are refused") from error

    def dtype(self, name: Any = None, *_: Any) -> Dtype:
        name = _name(name)
        if name not in _TYPES:
            raise PickleError(f"a numpy array of type {_shown(name)} is refused")
        return Dtype(_TYPES[name])

    def scalar(self, kind: Any = None, data: Any = None, *_: Any) -> Any:
        if not isinstance(kind, Dtype) or kind.dtype.hasobject or not _is_bytes(data, kind.dtype.itemsize):
            raise PickleError("it holds a numpy number that is none")
        return np.frombuffer(data, kind.dtype)[0].item()


def _from_buffer(_: _Machine, data: Any = None, dtype: Any = None, shape: Any = None, *_order: Any) -> Array:
    return _fill(Array(), (1, shape, dtype, False, data))


def _order(kind: Dtype, state: Any) -> None:
    """Take up the byte order from the state that numpy stores: (version, order, ...)."""
    if not isinstance(state, tuple) or len(state) < 2:
        raise PickleError("it holds a numpy type whose state is none")
    order = _name(state[1])
    if order not in ("<", ">", "|", "="):
        raise PickleError(f"the byte order {_shown(order)} is refused")
    kind.dtype = kind.dtype.newbyteorder(order)


def _fill(array: Array, state: Any) -> Array:
    """Take up the state that numpy stores: (version, shape, dtype, is Fortran's order, data)."""
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Dtype):
        raise PickleError("it holds a numpy array without shape, type and data")
    _, shape, kind, _, data = state
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape) or len(shape) > 32:
        raise PickleError("it holds a numpy array whose shape is none")
    if sum(size != 1 for size in shape) > 1:  # in one row or column Fortran's order is the same
        raise PickleError(f"a numpy array of the shape {shape} is refused")
    length, dtype = math.prod(shape), kind.dtype
    whole = isinstance(data, list) and len(data) == length
    if not (whole if dtype.hasobject else _is_bytes(data, length * dtype.itemsize)):
        raise PickleError(f"it holds a numpy array whose data is not what {length} elements need")
    array.dtype, array.data = dtype, data
    return array


def _is_bytes(data: Any, length: int) -> bool:
    return isinstance(data, memoryview) and len(data) == length


def _name(value: Any) -> str:
    """Return a name given as text, or as Python 2's str."""
    if isinstance(value, Text):
        return str(value)
    return str(value, "latin1") if isinstance(value, memoryview) else described(value)


def _shown(text: str) -> str:
    """Return a stranger's text as it may stand in a sentence."""
    return (text if len(text) <= 100 else text[:100] + "…") if text.isprintable() else ascii(text[:100])


def described(value: Any) -> str:
    """Return what a value of `load_pickle` is, as it may stand in a sentence."""
    if isinstance(value, Array):
        return f"a numpy array of {value.dtype}"
    return _WORDS.get(type(value), str(value))


_WORDS = {
    list: "a list",
    tuple: "a list",
    type(None): "nothing",
    memoryview: "bytes",
    Text: "text",
    Dtype: "a numpy type",
    NdArray: "numpy's class of arrays",
    FunctionType: "a function",
}
_NUMBERS = "?" + np.typecodes["AllInteger"] + np.typecodes["Float"]
# What a pickle calls the types of elements -> what numpy calls them; some names are of older numpy.
_TYPES = {np.dtype(code).str[1:]: code for code in _NUMBERS}
_TYPES.update({"?": "?", "O": "O", "O4": "O", "O8": "O"})
_GLOBALS = {
    ("_codecs", "encode"): _Machine.as_bytes,
    ("builtins", "bytes"): _Machine.as_bytes,
    ("builtins", "bytearray"): _Machine.as_bytes,
    ("numpy", "dtype"): _Machine.dtype,
    ("numpy", "ndarray"): NdArray(),
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
    ("numpy.core.multiarray", "scalar"): _Machine.scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}
_STOP = ord(".")
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
# They put what is there already on the stack or into a list, so any number of pairs can share few images;
# INT, which stands for flags in protocol 0, makes a number of no more than some eight times its bytes.
_SPARING = {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT1", "GET", "BINGET", "LONG_BINGET", "APPEND"}
# What each known instruction does to the machine.
_DEEDS: dict[str, Callable[[_Machine], None]] = {
    "PROTO": _Machine.protocol,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "INT": lambda machine: machine.push(machine.decimal()),
    "FLOAT": lambda machine: machine.push(machine.decimal_fraction()),
    "BINFLOAT": lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),
    "LONG": lambda machine: machine.push(machine.decimal()),
    "BININT": lambda machine: machine.push(machine.number(4, signed=True)),
    "BININT1": lambda machine: machine.push(machine.number(1)),
    "BININT2": lambda machine: machine.push(machine.number(2)),
    "LONG1": lambda machine: machine.long_integer(1),
    "LONG4": lambda machine: machine.long_integer(4),
    "STRING": _Machine.quoted_line,
    "SHORT_BINSTRING": lambda machine: machine.push(machine.sized(1)),
    "BINSTRING": lambda machine: machine.push(machine.sized(4)),
    "SHORT_BINBYTES": lambda machine: machine.push(machine.sized(1)),
    "BINBYTES": lambda machine: machine.push(machine.sized(4)),
    "BINBYTES8": lambda machine: machine.push(machine.sized(8)),
    "BYTEARRAY8": lambda machine: machine.push(machine.sized(8)),
    "UNICODE": lambda machine: machine.push(Text(machine.line(), "raw-unicode-escape")),
    "SHORT_BINUNICODE": lambda machine: machine.push(Text(machine.sized(1))),
    "BINUNICODE": lambda machine: machine.push(Text(machine.sized(4))),
    "BINUNICODE8": lambda machine: machine.push(Text(machine.sized(8))),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "LIST": lambda machine: machine.push(machine.pop_to_mark()),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_all,
    "EMPTY_TUPLE": lambda machine: machine.push(()),
    "TUPLE": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "GET": lambda machine: machine.get(machine.decimal()),
    "BINGET": lambda machine: machine.get(machine.number(1)),
    "LONG_BINGET": lambda machine: machine.get(machine.number(4)),
    "PUT": lambda machine: machine.put(machine.decimal()),
    "BINPUT": lambda machine: machine.put(machine.number(1)),
    "LONG_BINPUT": lambda machine: machine.put(machine.number(4)),
    "MEMOIZE": lambda machine: machine.put(len(machine.memo)),
    "GLOBAL": lambda machine: machine.look_up(module=Text(machine.line()), name=Text(machine.line())),
    "INST": _Machine.instance_of_lines,
    "STACK_GLOBAL": lambda machine: machine.look_up(machine.pop(), machine.pop()),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
