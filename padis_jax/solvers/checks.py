"""What solvers refuse in one line: operators, measurements and settings that would give NaN or a traceback inside."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.errors import UserError, cut
from padis_jax.fields import LARGEST, check_fields, single
from padis_jax.operators.per_channel import with_channels

Kind = TypeVar("Kind", bound=type)


def refuse_batch(function: str, shape: tuple[int, ...], expected: tuple[int, ...] | None, over: str) -> None:
    """Raises ValueError if measurements of shape `expected` are stacked along a new first axis."""
    if expected is not None and shape[1:] == expected and shape != expected:
        raise ValueError(
            f"measurement has shape {shape}: one axis more than the operator's {expected}; {function} takes one image: "
            f"use jax.vmap over {over}"
        )


def checked(name: str, array: ArrayLike) -> Array:
    """The array, float32 or complex64, of any type of numbers; refused where not finite (not looked at while tracing).

    Raises:
      UserError: for no numbers, some that are not finite, or so large that float32 cannot hold their squares.
    """
    if isinstance(array, jax.core.Tracer):
        return single(array)
    wide = check_numbers(name, array)
    return single(array if isinstance(array, jax.Array) else wide)


def check_numbers(name: str, array: ArrayLike) -> np.ndarray:
    """What `checked` refuses; the array in double precision, of NumPy, so that nothing is compiled."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise UserError(f"{name} is an array of random keys: give an array of numbers")
    if fields := getattr(array, "_fields", ()):  # such as `total_variation` and `honest_measurement` return
        raise UserError(f"{name} is a {type(array).__name__}, which is no array: give its `{fields[0]}`")
    try:
        host = np.asarray(array)
    except (TypeError, ValueError) as error:  # lists of unequal lengths
        raise UserError(f"{name} is a {type(array).__name__}, which is no array: {cut(error, 80)}") from error
    if host.size == 0 or host.dtype.kind in "mM" or not jnp.issubdtype(host.dtype, np.number):
        raise UserError(f"{name} has shape {host.shape} and type {host.dtype}: give an array of numbers")
    if bad := int(host.size - np.count_nonzero(np.isfinite(host))):
        raise UserError(f"{name} has {bad} values of {host.size} that are NaN or infinite: mask or repair them first")
    wide = host.astype(np.complex128 if np.iscomplexobj(host) else np.float64)
    if (most := np.abs(wide).max()) * np.sqrt(host.size) > LARGEST:
        raise UserError(f"{name} has values up to {most:.3g}: too large for computing in float32; take a larger unit")
    return wide


def measured_by(dtype: Any, y: Array) -> Array:
    """y, complex where the operator's measurements of that type are; UserError where only y is."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return y.astype(jnp.complex64)
    if jnp.iscomplexobj(y):
        raise UserError(
            "measurement is complex, but the operator's measurements are real: give the real part, or an operator that "
            "gives complex ones"
        )
    return y


def checked_noise(noise_std: ArrayLike | None, shape: tuple[int, ...], operator: Any) -> Array | None:
    """What is known of the noise of a measurement of that shape, float32: one number, or one for each entry.

    It is one number, too, where the values are equal at all measured entries; while tracing they are not looked at.

    Raises:
      UserError: for another shape, a negative or infinite value, and 0 at a measured entry (`operator.measured`) beside
        positive values.
    """
    if noise_std is None:
        return None
    std = checked("noise_std", noise_std)
    if jnp.iscomplexobj(std) or std.shape not in ((), shape):
        raise UserError(f"noise_std has shape {std.shape} and type {std.dtype}: give a real number, or {shape} of them")
    if isinstance(noise_std, jax.core.Tracer):
        return std
    host = np.asarray(noise_std, np.float32)  # as it will be computed with
    if (least := host.min()) < 0:
        raise UserError(f"noise_std has values down to {least:g}: a standard deviation must not be negative")
    mask = getattr(operator, "measured", None)
    if not host.ndim or isinstance(mask, jax.core.Tracer):
        return std
    if mask is not None:
        host = host[with_channels(np.asarray(mask), host.shape) > 0]
    if host.size and host.min() == host.max():
        return jnp.asarray(host.ravel()[0])
    if bad := int(np.count_nonzero(host == 0)):
        raise UserError(
            f"noise_std is 0 at {bad} of {host.size} measured entries and positive elsewhere: give every entry its "
            "standard deviation, or 0 everywhere for no noise"
        )
    return std


def check_operator(operator: Any) -> None:
    """Refuses an operator without `.T` and `.norm`, or whose norm is no singular value (not looked at while tracing).

    Raises:
      UserError: with what is missing or wrong.
    """
    for name in ("T", "norm"):
        if not hasattr(operator, name):
            raise UserError(
                f"the operator has no .{name}: give one with .T and .norm, or make it with operators.from_functions"
            )
    norm = operator.norm
    if isinstance(norm, jax.core.Tracer):
        return
    value = np.asarray(norm)
    if value.size != 1 or not jnp.issubdtype(value.dtype, np.number) or np.iscomplexobj(value):
        raise UserError(f"the operator's norm is {norm!r}: it must be one real number, its largest singular value")
    if not 1 / LARGEST <= float(value.ravel()[0]) <= LARGEST:
        raise UserError(
            f"the operator's norm is {float(value.ravel()[0]):g}: it must be finite and positive, its largest singular "
            f"value, between {1 / LARGEST:g} and {LARGEST:g} (scale operator and measurement)"
        )


def check_prior(prior: Any) -> None:
    """Raises UserError for what is no prior."""
    if not all(hasattr(prior, name) for name in ("denoise", "frame", "channels", "tilings")):
        raise UserError(f"prior is a {type(prior).__name__}: give a Prior, such as load_prior(path) returns")


def check_settings(settings: Any, **intervals: str) -> None:
    """Refuses fields that are not what their annotations say (fields.py), or outside of their interval, as "(0, 2]".

    Arrays and traced values are not compared with the intervals.

    Raises:
      UserError: with the method, field, value and limits.
    """
    name = type(settings).__name__
    check_fields(settings, f"{name}: ")
    for field, interval in intervals.items():
        value, (low, high) = getattr(settings, field), interval[1:-1].split(", ")
        left_out = [float(end) for end, bracket in ((low, "("), (high, ")")) if bracket in interval]
        if not isinstance(value, (int, float, np.generic)):
            continue
        if isinstance(value, int) and value > 2**31 - 1:
            raise UserError(f"{name}: {field} is {value}: it must be at most {2**31 - 1}")
        seen = np.float32(value)  # as it will be computed with
        if not (np.float32(low) <= seen <= np.float32(high) and seen not in left_out):
            limits = f"{'above' if '(' in interval else 'at least'} {low}"
            limits += "" if high == "inf" else f" and {'below' if ')' in interval else 'at most'} {high}"
            raise UserError(f"{name}: {field} is {value}: it must be {limits}")


def renamed(**fields: str) -> Callable[[Kind], Kind]:
    """For a settings class: fields by their old names, {old: new}, work until the next release, with a warning."""

    def decorate(kind: Kind) -> Kind:
        own: Any = kind.__init__  # type: ignore[misc]

        @functools.wraps(own)
        def init(self: Any, *args: Any, **given: Any) -> None:
            for old in fields.keys() & given:
                if fields[old] in given:
                    raise UserError(f"{kind.__name__}: {old} is {fields[old]} now: leave {old} out")
                _say(kind, old, "(%s=...)")
                given[fields[old]] = given.pop(old)
            own(self, *args, **given)

        def reader(old: str) -> property:
            def read(self: Any) -> Any:
                _say(kind, old, ".%s")
                return getattr(self, fields[old])

            return property(read)

        def _say(kind: type, old: str, form: str) -> None:
            before, now = (f"{kind.__name__}{form % name}" for name in (old, fields[old]))
            warnings.warn(f"{before} is now {now}", FutureWarning, stacklevel=3)

        kind.__init__ = init  # type: ignore[misc]
        for old in fields:
            setattr(kind, old, reader(old))
        return kind

    return decorate


def as_arrays(settings: Any) -> Any:
    """The settings with those that are arguments of compiled code in 32 bits, whatever numbers they were given as."""
    hints = get_type_hints(type(settings))
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata.get("static")}
    types = {name: jnp.int32 if int in get_args(hints[name]) else jnp.float32 for name in given}
    return dataclasses.replace(settings, **{name: jnp.asarray(value, types[name]) for name, value in given.items()})
