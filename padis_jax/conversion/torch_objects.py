"""What the few names in a PyTorch checkpoint stand for: storages, tensors, modules, numpy's arrays and numbers.

None of them runs anything: a tensor is (storage, offset, size, strides) and is read when its turn comes; a module is
the name of its class and its attributes. The table of calls is what `pickled.read_pickle` allows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from padis_jax.conversion.pickled import Call, Global

_STORAGES: Mapping[str, np.dtype[Any]] = {
    f"torch {name}Storage": np.dtype(kind)
    for name, kind in {
        "Float": "<f4",
        "Double": "<f8",
        "Half": "<f2",
        "BFloat16": ml_dtypes.bfloat16,
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
_TYPES = frozenset(
    f"torch {n}" for n in "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
) | {"numpy ndarray"}
NAMES = _TYPES | frozenset(_STORAGES)
_MODULES = tuple(f"torch.nn.modules.container {n}" for n in ("ModuleDict", "ModuleList", "Sequential", "ParameterList"))


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Where the elements of tensors are: a function that reads them, their type and their number."""

    read: Callable[[], bytes]
    dtype: np.dtype[Any]
    count: int


class Tensor(NamedTuple):
    """A tensor that is not read yet; strides and offset count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.size, dtype=object)) * self.storage.dtype.itemsize

    def array(self) -> np.ndarray:
        """The elements; ValueError unless the storage holds what it says."""
        flat = np.frombuffer(self.storage.read(), self.storage.dtype)
        if flat.size != self.storage.count:
            raise ValueError(f"a storage holds {flat.size} elements, but says {self.storage.count}; damaged")
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides).copy()


@dataclasses.dataclass(eq=False)
class Module:
    """A pickled object of a network: the name of its class and its attributes, nothing that could run."""

    kind: str
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, state: Any) -> None:
        """Takes the attributes."""
        if type(state) is not dict:
            raise ValueError(f"the attributes of {self.kind[:60]!r} are not a dict; damaged")
        self.state = state


@dataclasses.dataclass(eq=False)
class _DType:
    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 8 or state[1] not in ("<", "|", ">") or any(state[2:5]):
            raise ValueError("a numpy dtype is not a plain number type; refused")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclasses.dataclass(eq=False)
class PickledArray:
    """A pickled numpy array."""

    state: tuple[Any, ...] = ()

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not _DType or type(state[4]) is not bytes:
            raise ValueError("a numpy array is damaged, or holds objects; refused")
        self.state = state

    def tensor(self) -> Tensor:
        _, shape, kind, fortran, raw = self.state
        size = _integers(shape, "shape")
        steps = np.cumprod([1, *(size if fortran else size[::-1])], dtype=object)[:-1].tolist()
        return _tensor((Storage(lambda: raw, kind.dtype, len(raw) // kind.dtype.itemsize), 0, size,
                        tuple(steps if fortran else steps[::-1])))  # fmt: skip


def storages(read: Callable[[str, np.dtype[Any]], bytes], types: dict[str, np.dtype[Any]]) -> Call:
    """Persistent ids ('storage', type, key, device, count, ...) -> Storage; notes the types by key."""

    def storage(ident: Any) -> Storage:
        if type(ident) is not tuple or len(ident) < 5 or ident[0] != "storage" or type(ident[1]) is not Global:
            raise ValueError("a reference to data that is not a storage; refused")
        _, kind, name, _, count = ident[:5]
        if kind.name not in _STORAGES or type(name) is not str or type(count) is not int or count < 0:
            raise ValueError(f"a storage of unknown type {kind.name[:40]!r} or size; refused")
        if len(ident) > 5 and ident[5] is not None:
            raise ValueError("a storage that is a view of another, as PyTorch before 0.4 wrote; save it again")
        dtype = types[name] = _STORAGES[kind.name]
        return Storage(lambda: read(name, dtype), dtype, count)

    return storage


def calls(load: Callable[[bytes], Any]) -> dict[str, Call]:
    """Every name that a checkpoint may call, and what we make of it.

    Args:
      load: reads the bytes of a storage inside of a pickle, which are a file of `torch.save`.
    """

    def storage(arguments: tuple[Any, ...]) -> Storage:
        (data,) = _given(arguments, bytes)
        found = load(data)
        if not isinstance(found, Storage):
            raise ValueError("a storage inside of the pickle is damaged")
        return found

    known: dict[str, Call] = {
        "collections OrderedDict": _mapping,
        "dnnlib.util EasyDict": _mapping,
        "torch._utils _rebuild_tensor": _tensor,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_parameter": lambda arguments: arguments[0],
        "torch._utils _rebuild_parameter_with_state": lambda arguments: arguments[0],
        "torch.storage _load_from_bytes": storage,
        "torch_utils.persistence _reconstruct_persistent_obj": _persistent_object,
        "torch Size": lambda arguments: _integers(arguments[0], "size"),
        "torch device": lambda _: None,
        "numpy dtype": _dtype,
        "_codecs encode": _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray scalar"] = _scalar
        known[f"{core}.multiarray _reconstruct"] = lambda _: PickledArray()
    for module in _MODULES:
        known[module] = lambda _, kind=module: Module(kind)  # type: ignore[misc]
    return known


def _given(arguments: tuple[Any, ...], *kinds: type) -> tuple[Any, ...]:
    if len(arguments) < len(kinds) or any(type(a) is not k for a, k in zip(arguments, kinds, strict=False)):
        raise ValueError(f"a call with arguments that are not {', '.join(k.__name__ for k in kinds)}; damaged")
    return arguments[: len(kinds)]


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if (
        type(values) not in (tuple, list)
        or len(values) > 8
        or not all(type(v) is int and 0 <= v < 2**48 for v in values)
    ):
        raise ValueError(f"the {what} of a tensor is damaged")
    return tuple(values)


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not arguments or arguments == ([],):
        return {}
    raise ValueError("a dict that is made from arguments; refused")


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset = _given(arguments, Storage, int)
    size, stride = (_integers(a, what) for a, what in zip(arguments[2:4], ("size", "stride"), strict=True))
    tensor = Tensor(storage, offset, size, stride)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if (
        offset < 0
        or (0 not in size and last >= storage.count)
        or tensor.nbytes > storage.count * storage.dtype.itemsize
    ):
        raise ValueError(f"a tensor of size {size} reaches beyond its storage of {storage.count} elements; refused")
    return tensor


def _persistent_object(arguments: tuple[Any, ...]) -> Module:
    (meta,) = _given(arguments, dict)
    kind, state = meta.get("class_name"), meta.get("state")
    if meta.get("type") != "class" or type(kind) is not str or type(state) is not dict:
        raise ValueError("a pickled class (torch_utils.persistence) without name or state; damaged")
    return Module(kind, state)


def _dtype(arguments: tuple[Any, ...]) -> _DType:
    (code,) = _given(arguments, str)
    if not re.fullmatch(r"f[248]|[iu][1248]|b1", code):
        raise ValueError(f"a numpy dtype {code[:20]!r}, which is not a plain number type; refused")
    return _DType(code)


def _scalar(arguments: tuple[Any, ...]) -> Any:
    kind, raw = _given(arguments, _DType, bytes)
    if len(raw) != kind.dtype.itemsize:
        raise ValueError("a numpy number is damaged")
    return np.frombuffer(raw, kind.dtype)[0].item()


def _encode(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = _given(arguments, str, str)
    if encoding != "latin1":
        raise ValueError("a text in an encoding that no array uses; refused")
    return text.encode("latin1")
