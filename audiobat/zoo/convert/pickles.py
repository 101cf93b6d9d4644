"""A pickle's bytes to plain values: nothing in it is imported, called or run.

In: a stream, and a function that makes a tensor of a reference to its bytes. Out: dicts, lists, tuples, sets, numbers,
text and those tensors; in the place of every other object stands a `Stub`, which has a name and does nothing.

Python's own readers will not do: with lengths that lie, `pickle.Unpickler` asks for gigabytes before it reads a byte;
it hashes keys that take for ever; and `torch.load(weights_only=True)` refuses a whole file for one argparse.Namespace.
So `pickletools` decodes the instructions, and a `Machine` carries out the harmless ones on a stack of plain values.
"""

from __future__ import annotations

import pickletools
import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import torch

STEPS = 2_000_000  # instructions of a pickle and items that it copies, at most: each may cost 200 bytes of memory
DIMENSIONS = 16  # of a tensor, and parts of a key, at most
LONGEST = 160  # characters of a name that is shown
DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
SETS = {"builtins.set", "builtins.frozenset"}
TENSORS = {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2")}
PARAMETERS = {f"torch._utils._rebuild_{kind}" for kind in ("parameter", "parameter_with_state")}
STORAGES = {
    f"torch.{kind}Storage": dtype
    for kind, dtype in {
        **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
        **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
        **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
    }.items()
}
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}
BYTES = {"_codecs.encode", "builtins.bytes"}  # how old protocols write bytes
CALLED = DICTS | SETS | TENSORS | PARAMETERS | BYTES | {"torch.Size"}  # `_call` has a plain value for each
NAMED = {f"builtins.{kind}" for kind in ("list", "dict", "tuple", "str", "int", "float", "bool")}  # without a call
LITERALS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
MAKE: dict[str, Callable[[], Any]] = {
    **{"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set},
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
}


@dataclass(eq=False)
class Stub:
    """Stands for the object or function `name` of the pickle; `state` is what its class would have been given."""

    name: str
    state: Any = None


class Storage(NamedTuple):
    """A reference to `numel` values outside the pickle."""

    key: str
    dtype: torch.dtype
    numel: int


class View(NamedTuple):
    """How a tensor lies in a storage: what `make_tensor` needs."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def shown(text: object) -> str:
    """A name from a file in a form that is safe to print: no control characters, at most LONGEST of them."""
    name = text if isinstance(text, str) else reprlib.repr(text)
    return name if name.isprintable() and len(name) <= LONGEST else ascii(name)[:LONGEST]


class Fault(Exception):
    """A pickle that is damaged, or that no checkpoint needs: the end of a sentence about it."""


@dataclass
class Machine:
    """Carries out the instructions of one pickle; `stubs` counts the names for which a stub stands."""

    make_tensor: Callable[[View], Any]
    stubs: Counter[str] = field(default_factory=Counter)
    _left: int = field(default_factory=lambda: STEPS)
    _stack: list[Any] = field(default_factory=list)
    _marks: list[list[Any]] = field(default_factory=list)
    _memo: dict[int, Any] = field(default_factory=dict)

    def run(self, stream: BinaryIO) -> Any:
        """The value of the pickle at which `stream` stands; the stream then stands behind it.

        The lengths that a pickle claims are held against the stream before anything of that size is made: the stream
        must be in memory or mapped. Raises Fault.
        """
        try:
            for op, arg, _ in pickletools.genops(stream):
                self._spend(1)
                if op.name == "STOP":
                    return self._stack.pop()
                self._step(op.name, arg)
        except Fault:
            raise
        except Exception as error:  # bytes that are no pickle can fail in any way
            raise Fault(f"it is damaged ({type(error).__name__}: {error})") from error
        raise Fault("it has no end")

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise Fault(f"it has more than {STEPS:,} steps, which no checkpoint needs")

    def _step(self, op: str, arg: Any) -> None:
        stack = self._stack
        if op in LITERALS:
            stack.append(arg)
        elif op in MAKE:
            stack.append(MAKE[op]())
        elif op in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[arg] = stack[-1]
        elif op == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif op in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[arg])
        elif op == "MARK":
            self._marks.append(stack)
            self._stack = []
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(op[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif op in ("LIST", "TUPLE", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK", "OBJ", "INST"):
            self._stack = self._marks.pop()
            self._marked(op, arg, stack)
        elif op in ("APPEND", "SETITEM"):
            items = [stack.pop() for _ in range(1 if op == "APPEND" else 2)][::-1]
            self._marked(f"{op}S", arg, items)
        elif op in ("GLOBAL", "STACK_GLOBAL"):
            parts = arg.split(" ", 1) if op == "GLOBAL" else [stack.pop(), stack.pop()][::-1]
            stack.append(self._named(".".join(parts)))
        elif op in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if op == "NEWOBJ_EX":
                stack.pop()  # arguments by name, which nothing that we know takes
            args, function = stack.pop(), stack.pop()
            stack.append(self._call(function, args))
        elif op == "BUILD":
            state, made = stack.pop(), stack[-1]
            if isinstance(made, Stub):
                made.state = state  # anything else, such as an OrderedDict, does without
        elif op in ("PERSID", "BINPERSID"):
            stack.append(storage(arg if op == "PERSID" else stack.pop()))
        elif op == "DUP":
            stack.append(stack[-1])
        elif op == "POP":
            stack.pop()
        elif op not in ("PROTO", "FRAME"):
            raise Fault(f"it has an instruction {op}, which no checkpoint needs")

    def _marked(self, op: str, arg: Any, items: list[Any]) -> None:
        """An instruction that takes all `items` above a mark: one that makes something of them, or adds them."""
        stack = self._stack
        if op == "LIST":
            stack.append(items)
        elif op == "TUPLE":
            stack.append(tuple(items))
        elif op == "DICT":
            stack.append(dict(pairs(items)))
        elif op == "FROZENSET":
            stack.append(frozenset(keys(items)))
        elif op == "OBJ":
            stack.append(self._call(items[0], tuple(items[1:])))
        elif op == "INST":
            stack.append(self._call(self._named(arg.replace(" ", ".", 1)), tuple(items)))
        elif op != "POP_MARK" and not isinstance(stack[-1], Stub):  # a stub does not care what is put into it
            if op == "APPENDS":
                stack[-1].extend(items)
            elif op == "SETITEMS":
                stack[-1].update(pairs(items))
            else:
                stack[-1].update(keys(items))

    def _named(self, name: str) -> Any:
        """The value for a name in a pickle: a torch.dtype, or else a stub, for the functions in CALLED too."""
        if name in DTYPES:
            return DTYPES[name]
        name = shown(name)
        if name.startswith("__builtin__."):  # what Python 2 called it, and so do protocols below 3
            name = name.replace("__builtin__", "builtins", 1)
        if name not in CALLED and name not in STORAGES and name not in NAMED:
            self.stubs[name] += 1
        return Stub(name)

    def _call(self, function: Any, args: Any) -> Any:
        """The plain value that a known function would give; a stub for any other. No function is called."""
        if not isinstance(function, Stub) or not isinstance(args, tuple):
            raise Fault("it calls what is no function")
        name = function.name
        self._spend(sum(len(arg) for arg in args if isinstance(arg, Collection)))
        if name in DICTS:  # what they hold, without a default
            held = args[-1] if args else ()
            if isinstance(held, list | tuple):
                return dict(pairs([x for pair in held for x in pair]))
            return dict(held) if isinstance(held, dict) else {}  # the last: a defaultdict's factory
        if name in SETS:
            return set(keys(args[0])) if args else set()
        if name in BYTES:
            return args[0].encode("latin-1") if args else b""
        if name == "torch.Size":
            return tuple(args[0])
        if name in TENSORS:
            return self.make_tensor(view(*args[:4]))
        if name in PARAMETERS:
            return args[0]
        if name in STORAGES or name in NAMED:
            self.stubs[name] += 1  # a call may ask for any amount of memory
        return Stub(name)


def pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Keys and values that lie one after another."""
    return zip(keys(items[::2]), items[1::2], strict=True)


def keys(items: Iterable[Any]) -> Iterable[Any]:
    """The items, once it is clear that hashing each is quick: numbers, text, stubs, and short tuples of these."""
    for item in items:
        parts = item if isinstance(item, tuple) and len(item) <= DIMENSIONS else (item,)
        for part in parts:
            small = not isinstance(part, int) or part.bit_length() <= 64
            if not isinstance(part, str | bytes | int | float | Stub | None) or not small:
                raise Fault(f"it has a {type(part).__name__} as a key")
        yield item


def storage(reference: Any) -> Storage:
    """The reference ("storage", kind, key, device, numel) that torch writes for the bytes of a tensor."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise Fault("it refers to something that is no storage of torch")
    _, kind, key, _, numel = reference[:5]
    name = kind.name if isinstance(kind, Stub) else kind
    if name not in STORAGES or not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise Fault(f"it refers to a storage of an unknown kind, {shown(name)}")
    if reference[5:] not in ((), (None,)):
        raise Fault(f"storage {shown(key)} is a part of another, as torch before 0.4 wrote them")
    return Storage(key, STORAGES[name], numel)


def view(storage: Any, offset: Any, shape: Any, stride: Any) -> View:
    """The arguments of a tensor, checked: it must lie in its storage and have no more elements than that."""
    if len(shape) > DIMENSIONS:
        raise Fault(f"it has a tensor of {len(shape)} dimensions")
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in numbers):
        raise Fault("it has a tensor whose shape is none")
    elements = torch.Size(shape).numel()
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if elements else 0
    if elements > storage.numel or last >= max(storage.numel, 1):
        raise Fault(
            f"a tensor of shape {list(shape)} does not fit storage {shown(storage.key)} of {storage.numel} values"
        )
    return View(storage, offset, tuple(shape), tuple(stride))
