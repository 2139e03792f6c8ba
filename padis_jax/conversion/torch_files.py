"""Named arrays of PyTorch's files, without PyTorch and without running anything from the file.

Read are pickles of whole networks (EDM's and the PaDIS authors': {'ema': network, ...}, each class stored as source
text, which is passed over), and what `torch.save` writes: a zip archive, or the older stream

    magic, protocol, type sizes, object | keys | per key: int64 count, raw elements           (five pickles, then data)

which is also how a storage inside a pickled network is written. A tensor is (storage, offset, size, strides).
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from padis_jax.conversion.pickled import Budget, Call, Vocabulary, read_pickle
from padis_jax.conversion.torch_objects import NAMES, Module, PickledArray, Tensor, calls, storages
from padis_jax.errors import UserError, cut
from padis_jax.files import check_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MAX_FILE = 8 * 2**30
MAX_ARRAYS, MAX_DEPTH, MAX_NAME = 20_000, 32, 200

_DAMAGE = (ValueError, OSError, EOFError, OverflowError, RuntimeError, MemoryError, struct.error, zipfile.BadZipFile)
_ENDIAN = "its numbers are not little-endian; save it again on an ordinary machine"
_PRECONDITIONED = re.compile(r"VP|VE|iDDPM")  # EDM's other networks, whose output means something else


class TorchFile(NamedTuple):
    """What a file holds.

    Attributes:
      arrays: name -> array, in PyTorch's layouts.
      sigma_data: the data deviation of the preconditioning, where the file tells.
      holds: where in the file they were: "ema", "state_dict", ... or "" for the file as a whole.
    """

    arrays: dict[str, np.ndarray]
    sigma_data: float | None
    holds: str


def read_torch(path: str | Path, *, key: str = "", budget: Budget | None = None) -> TorchFile:
    """Reads the named arrays of a network from a pickle, or from what `torch.save` wrote.

    Args:
      path: the file.
      key: which entry of a dict of networks; without it the first of ema, state_dict, model, net, params.
      budget: limits; by default those of `Budget`.

    Raises:
      UserError: naming the file and what is wrong with it, or what in it is refused.
    """
    check_file(path)
    try:
        with open(path, "rb") as handle, _mapped(handle) as file:
            if file.size() > MAX_FILE:
                raise ValueError(f"{file.size()} bytes are more than any supported network; refused")
            # Thousands of tensors may refer to one large storage; a network's hardly ever share one.
            return _arrays(_value(handle, file, budget or Budget()), key, 2 * file.size())
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else cut(error)
        raise UserError(f"{path}: {reason or type(error).__name__}") from error


def _mapped(handle: BinaryIO) -> mmap.mmap:
    try:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise ValueError("the file is empty") from error


def _value(handle: BinaryIO, file: mmap.mmap, budget: Budget) -> Any:
    if file[:4] == b"PK\x03\x04":
        return _read_zip(handle, file.size(), budget)
    if file[:1] != b"\x80":
        raise ValueError("this is neither a pickle (protocol 2 or later) nor a file of torch.save")
    if _is_stream(file):
        return _read_stream(file, budget, _calls(budget))
    return read_pickle(_as_file(file), Vocabulary(_calls(budget), NAMES), budget)


def _as_file(file: mmap.mmap | io.BytesIO) -> BinaryIO:
    return file  # type: ignore[return-value]  # mmap reads like a file


def _is_stream(file: mmap.mmap | io.BytesIO) -> bool:
    head = file.read(16)
    file.seek(0)
    return MAGIC.to_bytes(10, "little") in head


def _read_stream(file: mmap.mmap | io.BytesIO, budget: Budget, known: Mapping[str, Call]) -> Any:
    """PyTorch's older format."""
    handle, plain = _as_file(file), Vocabulary({})
    if read_pickle(handle, plain, budget) != MAGIC or read_pickle(handle, plain, budget) != PROTOCOL:
        raise ValueError("a file of torch.save of an unknown protocol")
    system = read_pickle(handle, plain, budget)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise ValueError(_ENDIAN)
    types: dict[str, np.dtype[Any]] = {}
    raw: dict[str, bytes] = {}  # filled after the tensors that refer to it were read

    def read(name: str, dtype: np.dtype[Any]) -> bytes:
        if name not in raw:
            raise ValueError(f"its storage {name[:40]!r} is missing")
        return raw[name]

    value = read_pickle(handle, Vocabulary(known, NAMES, storages(read, types)), budget)
    keys = read_pickle(handle, plain, budget)
    if type(keys) is not list or not all(type(key) is str and key in types for key in keys):
        raise ValueError("the list of its storages is damaged")
    for name in keys:
        count = int.from_bytes(file.read(8), "little", signed=True)
        size = count * types[name].itemsize
        raw[name] = file.read(size) if 0 <= size <= MAX_FILE else b""
        if len(raw[name]) != size:
            raise ValueError(f"truncated or damaged: a storage of {count} elements is not there")
    return value


def _read_zip(handle: BinaryIO, size: int, budget: Budget) -> Any:
    archive = zipfile.ZipFile(handle)
    entries = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise ValueError("a zip archive that is compressed, which torch.save never does; refused")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise ValueError("a zip archive whose entries are larger than the file; refused")
    mains = [name for name in entries if name.count("/") <= 1 and name.rsplit("/")[-1] == "data.pkl"]
    if len(mains) != 1:
        raise ValueError(f"a zip archive with {len(mains)} entries data.pkl, where torch.save writes one")
    root = mains[0].removesuffix("data.pkl")
    if root + "byteorder" in entries and archive.read(root + "byteorder") != b"little":
        raise ValueError(_ENDIAN)

    def read(name: str, _: np.dtype[Any]) -> bytes:
        if f"{root}data/{name}" not in entries:
            raise ValueError(f"its storage {name[:40]!r} is missing")
        return archive.read(f"{root}data/{name}")

    vocabulary = Vocabulary(_calls(budget), NAMES, storages(read, {}))
    return read_pickle(io.BytesIO(archive.read(mains[0])), vocabulary, budget)


def _calls(budget: Budget) -> dict[str, Call]:
    return calls(lambda data: _read_stream(io.BytesIO(data), budget, {}))


def _arrays(value: Any, key: str, limit: int) -> TorchFile:
    holds = key
    if type(value) is dict and not any(isinstance(item, (Tensor, PickledArray)) for item in value.values()):
        names = [name for name in value if isinstance(name, str)]
        holds = key or next((name for name in ("ema", "state_dict", "model", "net", "params") if name in names), "")
        if holds not in names:
            raise ValueError(f"no network under {holds!r}; it holds {', '.join(sorted(names))[:200] or 'nothing'}: "
                             "name one with --key")  # fmt: skip
        value = value[holds]
    elif key:
        raise ValueError(f"it holds one network, none named {key!r}; leave --key out")
    sigma_data = None
    if isinstance(value, Module):
        if _PRECONDITIONED.match(value.kind):
            raise ValueError(f"a network of class {value.kind[:60]!r}; only EDM's preconditioning is supported")
        given = value.state.get("sigma_data")
        sigma_data = float(given) if isinstance(given, (int, float)) else None
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in _named(value):
        limit -= tensor.storage.count * tensor.storage.dtype.itemsize
        if limit < 0 or len(arrays) >= MAX_ARRAYS:
            raise ValueError("its tensors together need more than the file holds; refused")
        arrays[name] = tensor.array()
    if not arrays:
        raise ValueError(f"no tensors found{f' under {holds!r}' if holds else ''}; name the network with --key")
    return TorchFile(arrays, sigma_data, holds)


def _named(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and its children, or the entries of a state dict."""
    todo: list[tuple[str, Any, int]] = [("", value, 0)]
    seen = 0
    while todo:
        prefix, item, depth = todo.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_ARRAYS:
            raise ValueError("its modules are nested without end; refused")
        if isinstance(item, Module):
            tensors = [item.state.get(group) for group in ("_parameters", "_buffers")]
            children = item.state.get("_modules")
        else:
            tensors, children = [item], None
        for group in tensors:
            for name, tensor in _entries(group):
                if isinstance(tensor, PickledArray):
                    tensor = tensor.tensor()
                if isinstance(tensor, Tensor):
                    yield prefix + name, tensor
        todo += [(f"{prefix}{name}.", child, depth + 1) for name, child in _entries(children) if child is not None]


def _entries(group: Any) -> list[tuple[str, Any]]:
    if group is None:
        return []
    if type(group) is not dict or not all(type(name) is str and len(name) <= MAX_NAME for name in group):
        raise ValueError("a network's parameters are not a dict of names; damaged")
    return list(group.items())
