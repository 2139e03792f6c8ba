"""The memory of a program from its trace alone, nothing compiled: what XLA's CPU compiler does, in four rules.

1. Kernels (convolutions, contractions, reductions, random bits) read arrays and write arrays. All else is fused:
   computed where it is read, unless it has several readers and is costly, or joins several arrays for a kernel.
2. A fused operand of a kernel is written for it; a contraction wants it as a matrix, which is a copy unless a kernel
   wrote it. On the CPU, contractions and costly functions of bfloat16 work in float32.
3. What has its operands is computed, first come, first served: kernels of convolutions are turned and dropout is drawn
   at the start.
4. An array dies after its last reader. A fused result takes over an operand that dies with it.

On the CPU the total is within a quarter of XLA's own for the networks of configs/ (tests/test_footprint.py); elsewhere
XLA orders and fuses differently, and this was not measured.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from padis_jax.devices.memory import Memory

PACKING = 1.1  # what XLA allocates over what is alive: arrays are laid out once and for all, with gaps between them
_CONTRACTIONS = {"conv_general_dilated", "dot_general"}
_LOOPS = {"scan", "while", "cond"}
_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "cumsum", "sort"}
_RANDOM = {"random_bits", "random_seed", "random_split", "random_fold_in", "random_wrap", "random_unwrap"}
_KERNELS = _CONTRACTIONS | _LOOPS | _REDUCTIONS | _RANDOM
_COSTLY = {"exp", "log", "log1p", "tanh", "logistic", "sqrt", "rsqrt", "pow", "sin", "cos", "erf_inv", "div"}
_RESHAPES = {"reshape", "squeeze", "expand_dims", "copy", "stop_gradient"}


class _Op(NamedTuple):
    """One operation; values are numbered, constants left out."""

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    kernel: bool
    costly: bool
    joins: bool


class _Trace(NamedTuple):
    ops: list[_Op]
    avals: list[Any]  # of the values: shape and dtype
    arguments: list[int]
    results: list[int]


class _Array(NamedTuple):
    """What is written to memory, by a kernel or by fused operations."""

    bytes: int
    reads: frozenset[Hashable]
    fused: bool


def footprint(f: Callable[..., Any], *arguments: Any) -> Memory:
    """What a call of `jax.jit(f)` takes, estimated.

    Args:
      f: a pure function of pytrees of arrays.
      arguments: arrays, or their shapes.
    """
    trace = _flat(jax.make_jaxpr(f)(*arguments))
    arrays, returned = _arrays(trace)
    size = [sum(_bytes(trace.avals[v]) for v in values) for values in (trace.arguments, trace.results)]
    return Memory(int(PACKING * _peak(arrays, returned)), *size)


def _bytes(aval: Any) -> int:
    return int(math.prod(aval.shape)) * aval.dtype.itemsize  # of a random key too


def _flat(closed: ClosedJaxpr) -> _Trace:
    """The operations that a result depends on, calls inlined."""
    ops: list[_Op] = []
    avals: list[Any] = []
    filled: set[int] = set()  # values that repeat a smaller one

    def new(variable: Any) -> int:
        avals.append(variable.aval)
        return len(avals) - 1

    def walk(jaxpr: Jaxpr, values: list[int | None]) -> list[int | None]:
        known: dict[Any, int | None] = dict.fromkeys(jaxpr.constvars) | dict(zip(jaxpr.invars, values, strict=True))

        def read(variables: list[Any]) -> list[int | None]:
            return [None if isinstance(v, Literal) else known[v] for v in variables]

        for eqn in jaxpr.eqns:
            name, operands = eqn.primitive.name, read(eqn.invars)
            inner = next((p for p in eqn.params.values() if isinstance(p, Jaxpr | ClosedJaxpr)), None)
            if inner is not None and name not in _LOOPS:
                body = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                known.update(zip(eqn.outvars, walk(body, operands), strict=True))
                continue
            reads, writes = tuple(v for v in operands if v is not None), tuple(map(new, eqn.outvars))
            known.update(zip(eqn.outvars, writes, strict=True))
            rank = len(avals[writes[0]].shape)
            joins = sum(len(avals[v].shape) >= rank for v in reads if v not in filled) > 1
            if name == "broadcast_in_dim":
                filled.update(writes)
            costly = name in _COSTLY and not (name == "div" and operands[1] is None)  # x / 2 is a product
            ops.append(_Op(name, reads, writes, _is_kernel(eqn), costly, joins))
        return read(jaxpr.outvars)

    arguments = [new(v) for v in closed.jaxpr.invars]
    results = [v for v in walk(closed.jaxpr, list(arguments)) if v is not None]
    needed, kept = set(results), []
    for op in reversed(ops):
        if needed.intersection(op.writes):
            needed.update(op.reads)
            kept.append(op)
    return _Trace(kept[::-1], avals, arguments, results)


def _is_kernel(eqn: Any) -> bool:
    if eqn.primitive.name == "dot_general":  # over nothing, it is a product
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted) > 1
    return eqn.primitive.name in _KERNELS


def _written(trace: _Trace) -> set[int]:
    """Values that are written once, for all readers (rule 1)."""
    direct = collections.defaultdict(list)
    for op in trace.ops:
        for v in set(op.reads):
            direct[v].append(op)
    written: set[int] = set()
    readers: dict[int, list[bool]] = {}  # of a value, directly or through what is fused: whether each is a kernel
    for op in reversed(trace.ops):
        for v in op.writes:
            readers[v] = [True] * (v in trace.results)
            for reader in direct[v]:
                if reader.kernel or reader.joins or written.intersection(reader.writes):
                    readers[v].append(reader.kernel)
                else:
                    readers[v] += [kernel for w in reader.writes for kernel in readers[w]]
            if op.kernel or (len(readers[v]) > 1 and (op.costly or (op.joins and any(readers[v])))):
                written.add(v)
    return written


def _arrays(trace: _Trace) -> tuple[dict[Hashable, _Array], set[Hashable]]:
    """What is written to memory, in the order of the trace, and which of it is returned (rules 1 and 2)."""
    size, written = [_bytes(aval) for aval in trace.avals], _written(trace)
    widens = jax.default_backend() == "cpu"
    arrays: dict[Hashable, _Array] = {}
    sources = {v: frozenset[Hashable]([v]) for v in trace.arguments}  # arrays that a value is computed from
    plain: dict[int, Hashable] = {v: v for v in trace.arguments}  # what a kernel wrote, reshaped or not

    def wide(name: str, v: int) -> bool:
        return widens and name in _CONTRACTIONS | _COSTLY and trace.avals[v].dtype == "bfloat16"

    def operand(v: int, name: str) -> Hashable:
        widen, matrix = wide(name, v), name == "dot_general"
        if not widen and (v in plain or (v in written and not matrix)):
            return plain.get(v, v)
        return arrays.setdefault((v, matrix, widen), _Array(size[v] << widen, sources[v], True)) and (v, matrix, widen)

    for op in trace.ops:
        first = op.writes[0]
        if op.kernel:
            reads = frozenset(operand(v, op.name) for v in op.reads)
            arrays[first] = _Array(sum(size[v] << wide(op.name, v) for v in op.writes), reads, False)
            sources |= dict.fromkeys(op.writes, frozenset([first]))
            plain |= dict.fromkeys(op.writes, first)
            continue
        for v in op.writes:
            sources[v] = frozenset().union(*(sources[r] for r in op.reads))
            if op.name in _RESHAPES and op.reads and op.reads[0] in plain:
                plain[v] = plain[op.reads[0]]
            elif v in written:
                arrays[v] = _Array(size[v] << wide(op.name, v), sources[v], op.name != "concatenate")
                sources[v] = frozenset([v])
    return arrays, {operand(v, "") for v in trace.results}


def _peak(arrays: dict[Hashable, _Array], returned: set[Hashable]) -> int:
    """Bytes of the arrays that are alive at once, without those that are returned (rules 3 and 4)."""
    readers = collections.defaultdict(list)
    for name, array in arrays.items():
        for r in array.reads & arrays.keys():
            readers[r].append(name)
    waits = {name: len(array.reads & arrays.keys()) for name, array in arrays.items()}
    unread = {name: len(found) for name, found in readers.items()}
    size = {name: 0 if name in returned else array.bytes for name, array in arrays.items()}
    ready = collections.deque(name for name, count in waits.items() if count == 0)
    alive = peak = 0
    while ready:
        name = ready.popleft()
        dying = []
        for r in arrays[name].reads & arrays.keys():
            unread[r] -= 1
            if unread[r] == 0:
                dying.append(size[r])
        takes_over = arrays[name].fused and max(dying, default=0) >= size[name]
        peak = max(peak, alive + size[name] * (not takes_over))
        alive += size[name] * (name in readers) - sum(dying)
        for reader in readers[name] if name in readers else ():
            waits[reader] -= 1
            if waits[reader] == 0:
                ready.append(reader)
    return peak
