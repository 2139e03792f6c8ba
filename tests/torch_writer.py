"""Writes pickles and PyTorch's files opcode by opcode, so that tests need neither PyTorch nor `pickle`."""

import io
import struct
import zipfile
import zlib

import numpy as np

PROTO2, PROTO4, STOP = b"\x80\x02", b"\x80\x04", b"."
MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_STORAGE = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def binary(value):
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value):
    return b"J" + struct.pack("<i", value)


def real(value):
    return b"G" + struct.pack(">d", value)


def name(module, own, protocol=2):
    if protocol == 2:
        return b"c" + module.encode() + b"\n" + own.encode() + b"\n"
    return text(module) + text(own) + b"\x93"


def many(*items):
    return b"(" + b"".join(items) + b"t"


def mapping(items):
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def ordered(items):
    return name("collections", "OrderedDict") + b")R(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def call(function, *arguments):
    return function + many(*arguments) + b"R"


def pickled(body, protocol=PROTO4):
    return protocol + body + STOP


def persistent(array, key):
    """The persistent id of an array's storage."""
    storage = name("torch", _STORAGE[str(array.dtype)])
    return many(text("storage"), storage, text(key), text("cpu"), integer(array.size)) + b"Q"


def tensor(storage, shape, offset=0, stride=None):
    if stride is None:
        stride = np.cumprod([1, *shape[::-1]])[:-1][::-1]
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    sizes = (many(*map(integer, shape)), many(*map(integer, map(int, stride))))
    return call(rebuild, storage, integer(offset), *sizes, b"\x89", name("collections", "OrderedDict") + b")R")


def system(little=True):
    sizes = mapping({"short": integer(2), "int": integer(4), "long": integer(4)})
    about = {"protocol_version": integer(1001), "little_endian": b"\x88" if little else b"\x89", "type_sizes": sizes}
    return pickled(mapping(about), PROTO2)


def stream(body, arrays, little=True):
    """torch.save's older format: `body` refers to the arrays by persistent ids of their keys."""
    keys = pickled(b"](" + b"".join(map(text, arrays)) + b"e", PROTO2)
    data = b"".join(struct.pack("<q", a.size) + np.ascontiguousarray(a).tobytes() for a in arrays.values())
    return MAGIC + pickled(b"M\xe9\x03", PROTO2) + system(little) + pickled(body, PROTO2) + keys + data


def load_from_bytes(array, key="94000"):
    """A storage as it stands in the pickle of a whole network."""
    inner = stream(persistent(array, key), {key: array})
    return call(name("torch.storage", "_load_from_bytes"), binary(inner))


def parameter(array):
    value = tensor(load_from_bytes(array), array.shape)
    return call(name("torch._utils", "_rebuild_parameter"), value, b"\x88", name("collections", "OrderedDict") + b")R")


def persistent_object(kind, state):
    meta = {"type": text("class"), "version": integer(6), "module_src": text("import os\nos.system('touch CANARY')\n"),
            "class_name": text(kind), "state": mapping(state)}  # fmt: skip
    return call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), mapping(meta))


def module(kind, tree, **attributes):
    """A pickled network of the dotted names in `tree`; the containers of blocks are ModuleDicts, as in EDM's."""
    own = {k: v for k, v in tree.items() if not isinstance(v, dict)}
    buffers = {k: tensor(load_from_bytes(v), v.shape) for k, v in own.items() if k in ("resample_filter", "freqs")}
    parameters = {k: parameter(v) for k, v in own.items() if k not in buffers}
    children = {k: module("Block", v) for k, v in tree.items() if isinstance(v, dict)}
    state = {"_parameters": ordered(parameters), "_buffers": ordered(buffers), "_modules": ordered(children)}
    state |= {"training": b"\x89", **attributes}
    if children and not own and all("x" in k for k in children):
        return name("torch.nn.modules.container", "ModuleDict") + b")\x81" + mapping(state) + b"b"
    return persistent_object(kind, state)


def nested(flat):
    tree = {}
    for dotted, value in flat.items():
        *path, leaf = dotted.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[leaf] = value
    return tree


def scalar(value, code="f8"):
    kind = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
    kind += many(integer(3), text("<"), b"NNN", integer(-1), integer(-1), integer(0)) + b"b"
    return call(name("numpy._core.multiarray", "scalar"), kind, binary(np.asarray(value, code).tobytes()))


def network_pickle(flat, kind="Patch_EDMPrecond", sigma_data=None, **others):
    """{'ema': network, 'loss_fn': ..., ...} as the authors' training writes it."""
    sigma_data = scalar(0.5) if sigma_data is None else sigma_data
    network = module(kind, nested(flat), sigma_data=sigma_data, img_resolution=integer(32))
    loss = persistent_object("Patch_EDMLoss", {"P_mean": real(-1.2)})
    return pickled(mapping({"ema": network, "loss_fn": loss, "augment_pipe": b"N", "dataset_kwargs": b"}", **others}))


def state_dict(flat):
    """(body, arrays) of a state dict with persistent ids."""
    arrays = {str(i): a for i, a in enumerate(flat.values())}
    body = ordered({k: tensor(persistent(a, str(i)), a.shape) for i, (k, a) in enumerate(flat.items())})
    return body + mapping({"_metadata": b"}"}) + b"b", arrays


def archive(body, arrays, compression=zipfile.ZIP_STORED, **entries):
    """torch.save's zip format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("state/data.pkl", pickled(body, PROTO2))
        for key, array in arrays.items():
            file.writestr(f"state/data/{key}", np.ascontiguousarray(array).tobytes())
        for key, data in entries.items():
            file.writestr(f"state/{key}", data)
    return buffer.getvalue()


def claim(data, entry, size):
    """The archive with another size in the headers of one entry."""
    data, start = bytearray(data), 0
    while (found := data.find(entry.encode(), start)) >= 0:
        start = found + 1
        if data[found - 30 : found - 26] == b"PK\x03\x04":
            struct.pack_into("<II", data, found - 12, size, size)
        elif data[found - 46 : found - 42] == b"PK\x01\x02":
            struct.pack_into("<II", data, found - 26, size, size)
    return bytes(data)


def bomb(size):
    """A compressed archive whose object is `size` zeros."""
    assert zlib.crc32(b"") == 0
    return archive(text("0" * size), {}, zipfile.ZIP_DEFLATED)
