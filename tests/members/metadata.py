"""JSON of every kind that is read, changed at random: of weights, of geometries, and of what runs leave in a folder.

A change may leave the JSON right. So a value is right if it is the one before, or if what was read keeps its promises;
of a batch job these are that its outputs are right afterwards, and that none is called done that is not.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tiny import write_weights

from members import EITHER, Member
from members.scans import planned
from padis_jax.errors import UserError
from padis_jax.lock import locked
from padis_jax.measurements.geometry import ScanGeometry, read_geometry
from padis_jax.outputs import claimed
from padis_jax.runs import batch_job
from padis_jax.weights import load_weights

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 3000, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 0.0, -0.5, 1e-320, 1e300,
    math.nan, math.inf, -math.inf, "", "x", "x" * 5000, "a\nb\x1b[31m", "\ud800", "\0", "../../etc/passwd", "/dev/zero",
    [], [0], [1] * 5000, [10**9] * 2, [2**62, 1], [[[1]]], [None], ["a"], {}, {"a": 1}, {"": {"": {}}},
)  # fmt: skip
_TEXTS = ("", "null", "[]", "0", '"a"', "{", "{}", "[" * 100_000, '{"a":' * 100_000, "9" * 5000,
          '{"a": %s}' % ("9" * 5000), "NaN", "\x00", "\ufeff{}", "{} {}", "{'a': 1}", '{"a": 1, "a": 2}',
          "x" * 100_000)  # fmt: skip


def mutated(rng: np.random.Generator, value: Any) -> Any:
    """One place, anywhere, that is another value, gone, there twice or under another name."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = list(value)[rng.integers(len(value))]
        kind = rng.integers(9)
        rest = {k: v for k, v in value.items() if k != key}
        if kind == 0:
            return rest
        if kind == 1:
            return rest | {[f"{key}_", key.upper(), "", "x" * 5000, "a\nb"][rng.integers(5)]: value[key]}
        return value | {key: mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = int(rng.integers(len(value)))
        kind = rng.integers(4)
        if kind < 2:
            return value[:at] + ([] if kind else [value[at]] * 2) + value[at + 1 :]
        return [*value[:at], mutated(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, (int, float)) and abs(value) < 1e9 and rng.random() < 0.3:
        return [-value, value + 1, value * 1.5, str(value), [value]][rng.integers(5)]
    return VALUES[rng.integers(len(VALUES))]


def text_of(rng: np.random.Generator, value: Any) -> bytes:
    """Its JSON after one to three changes; at times no JSON, or cut off."""
    kind = rng.integers(12)
    if kind == 0:
        return _TEXTS[rng.integers(len(_TEXTS))].encode("utf-8", "surrogatepass")
    for _ in range(1 + rng.integers(3)):
        value = mutated(rng, value)
    text = json.dumps(value).encode()
    return text[: rng.integers(len(text))] if kind == 1 else text


def weights(seed: int, count: int) -> Iterator[Member]:
    """The four texts in a weights file's header, and the header itself."""
    for case in range(count):
        rng = np.random.default_rng([seed, 1, case])

        def make(folder: Path, rng: np.random.Generator = rng) -> Path:
            path = write_weights(folder / "w.safetensors")
            data = path.read_bytes()
            end = 8 + int.from_bytes(data[:8], "little")
            head = json.loads(data[8:end])
            if rng.random() < 0.2:
                text = text_of(rng, head)
            else:
                about = head["__metadata__"]
                name = ("network", "frame", "window", "provenance")[rng.integers(4)]
                about[name] = text_of(rng, json.loads(about[name])).decode("utf-8", "replace")
                text = json.dumps(head).encode()
            text += b" " * (-len(text) % 8)
            path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
            return path

        def read(path: Path) -> None:
            found = load_weights(path)
            assert found.window.high > found.window.low and math.isfinite(found.window.high - found.window.low)
            assert all(side < 2**14 for side in found.frame.image_shape)

        def command(path: Path) -> list[str]:
            return ["sample", "--weights", str(path), "--generate", "1", "--dry-run", "--workdir", f"{path.parent}/out"]

        yield Member("weights", f"metadata {case}", make, read, EITHER, command=command)


GEOMETRIES: tuple[dict[str, Any], ...] = (
    {"beam": "fan", "angles": [0.0, 90.0, 180.0, 270.0], "angle_unit": "degrees", "bins": 12, "spacing_mm": 1.0,
     "offset_mm": 0.5, "source_distance_mm": 60.0, "detector_distance_mm": 30.0},
    {"beam": "parallel", "angles": [0.0, 0.5, 1.0], "angle_unit": "radians", "bins": 12, "spacing_mm": 1.0},
    {"type": "parallel", "DetectorWidth": 1.0, "DetectorCount": 12, "ProjectionAngles": [0.0, 0.5]},
    {"type": "fanflat", "DetectorWidth": 1.0, "DetectorCount": 12, "ProjectionAngles": [0.0, 0.5],
     "DistanceOriginSource": 60, "DistanceOriginDetector": 30},
    {"type": "parallel_vec", "DetectorCount": 12, "Vectors": [[0, -1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]]},
    {"type": "fanflat_vec", "DetectorCount": 12, "Vectors": [[0, -60, 0, 30, 1, 0], [60, 0, -30, 0, 0, 1]]},
)  # fmt: skip


def geometries(seed: int, count: int) -> Iterator[Member]:
    """Our JSON and ASTRA's."""
    for case in range(count):
        rng = np.random.default_rng([seed, 2, case])

        def make(folder: Path, rng: np.random.Generator = rng, case: int = case) -> Path:
            (folder / "g.json").write_bytes(text_of(rng, GEOMETRIES[case % len(GEOMETRIES)]))
            np.save(folder / "y.npy", np.random.default_rng(0).random((3, 12)))
            return folder / "g.json"

        def read(path: Path) -> None:
            found = read_geometry(path)
            numbers = [*found.radians, *(v for v in vars(found).values() if isinstance(v, (int, float)))]
            assert isinstance(found, ScanGeometry) and all(map(math.isfinite, numbers)), found
            if found.bins < 1000 and len(found.angles) < 1000:
                found.operator((8, 8), found.field_mm / 8 or 1.0)

        def command(path: Path) -> list[str]:
            return planned(path.parent / "y.npy", path)

        yield Member("geometry", f"geometry {case}", make, read, EITHER, command=command)


def _solve(numbers: Any, items: Any) -> Any:
    return np.stack([np.full((2, 2, 1), item.case) for item in items]), np.full(len(items), 0.1)


def _read(path: Path) -> batch_job.Item:
    return batch_job.Item(batch_job.read_sinogram(path, (2, 3))[0][0, 0])  # type: ignore[arg-type]


def _run(folder: Path) -> dict[str, int]:
    items = batch_job.list_items(folder / "scans", (".npz",), folder / "out")
    names = ["job.json", "manifest.jsonl", *(f"{item}.npz" for item in items)]
    with claimed(folder / "out", names, [str(folder / "scans")]):
        return batch_job.run(items, folder / "out", _read, _solve, {"experiment": {"seed": 0}}, batch=2)


def _changed(rng: np.random.Generator, path: Path) -> None:
    if path.suffix != ".jsonl":
        path.write_bytes(text_of(rng, json.loads(path.read_bytes())))
        return
    lines = path.read_bytes().splitlines()
    at = int(rng.integers(len(lines)))
    kind = rng.integers(5)
    changed = text_of(rng, json.loads(lines[at]))
    lines[at : at + 1] = ([], [lines[at]] * 2, [b"", lines[at]])[kind] if kind < 3 else [changed]
    path.write_bytes(b"\n".join(lines) + b"\n" * int(rng.integers(2)))


def jobs(seed: int, count: int) -> Iterator[Member]:
    """A finished batch job of which a list, an output, a measurement or a lock is another one, run again."""
    for case in range(count):
        rng = np.random.default_rng([seed, 3, case])

        def make(folder: Path, rng: np.random.Generator = rng, case: int = case) -> Path:
            (folder / "scans").mkdir()
            for index in range(3):
                np.savez(folder / "scans" / f"s{index}.npz", sinogram=np.full((2, 3), index, np.float32))
            _run(folder)
            name = ("job.json", "manifest.jsonl", "results.json", "manifest.jsonl", "lock.json", "output", "scan")[
                case % 7
            ]
            if name == "lock.json":
                with locked(folder / "out"):
                    held = (folder / "out" / name).read_bytes()
                (folder / "out" / name).write_bytes(held)
            if name == "output":
                path = folder / "out" / "s1.npz"
                path.write_bytes(path.read_bytes()[: rng.integers(200)] + bytes(int(rng.integers(3))))
            elif name == "scan":
                np.savez(folder / "scans" / "s1.npz", sinogram=np.full((2, 3), 7, np.float32))
            else:
                _changed(rng, folder / "out" / name)
            return folder

        def read(folder: Path) -> None:
            try:
                _run(folder)
            except UserError as error:
                assert str(folder / "out") in str(error) or "lock" in str(error), error
                raise
            lines = [json.loads(line) for line in (folder / "out" / "manifest.jsonl").read_text().splitlines()]
            assert {line["item"] for line in lines if line["status"] == "done"} >= {"s0", "s1", "s2"}
            for index in range(3):
                with (
                    np.load(folder / "scans" / f"s{index}.npz") as scan,
                    np.load(folder / "out" / f"s{index}.npz") as out,
                ):
                    assert (out["image"] == scan["sinogram"][0, 0]).all() and out["image"].shape == (2, 2, 1)

        yield Member("manifests", f"job {case}", make, read, EITHER)


def equal_geometries() -> Iterator[Member]:
    """One geometry in many forms: whole numbers, defaults left out, ASTRA's names, vectors."""
    angles = np.arange(4) * np.pi / 2
    fan = ScanGeometry("fan", tuple(angles), "radians", 12, 1.5, 0.0, 60.0, 30.0)
    parallel = ScanGeometry("parallel", tuple(angles), "radians", 12, 1.5)
    across, along = np.stack([-np.sin(angles), np.cos(angles)], 1), np.stack([np.cos(angles), np.sin(angles)], 1)
    vectors = np.concatenate([-60 * across, 30 * across, 1.5 * along], 1)
    flat = np.concatenate([across, 0 * across, 1.5 * along], 1)
    forms: list[tuple[ScanGeometry, dict[str, Any]]] = [
        (fan, dataclasses.asdict(fan)),
        (fan, dataclasses.asdict(fan) | {"angles": [0, 90, 180, 270], "angle_unit": "degrees"}),
        (fan, {"type": "fanflat", "DetectorWidth": 1.5, "DetectorCount": 12.0, "ProjectionAngles": angles.tolist(),
               "DistanceOriginSource": 60, "DistanceOriginDetector": 30.0}),
        (fan, {"type": "fanflat_vec", "DetectorCount": 12, "Vectors": vectors.tolist()}),
        (parallel, {"beam": "parallel", "angles": [0, 90, 180, 270], "angle_unit": "degrees", "bins": 12,
                    "spacing_mm": 1.5}),
        (parallel, {"type": "parallel", "DetectorWidth": 1.5, "DetectorCount": 12,
                    "ProjectionAngles": angles.tolist()}),
        (parallel, {"type": "parallel_vec", "DetectorCount": 12, "Vectors": flat.tolist()}),
    ]  # fmt: skip

    def numbers(geometry: ScanGeometry) -> np.ndarray:
        turned = np.stack([np.cos(geometry.radians), np.sin(geometry.radians)]).ravel()
        rest = (geometry.bins, geometry.spacing_mm, geometry.offset_mm, geometry.source_distance_mm)
        return np.array([*turned, *rest, geometry.detector_distance_mm])

    for index, (right, form) in enumerate(forms):
        for spaces in (None, 2):
            text = json.dumps(form, indent=spaces).encode()

            def make(folder: Path, text: bytes = text) -> Path:
                (folder / "g.json").write_bytes(text)
                return folder / "g.json"

            read: Callable[[Path], np.ndarray] = lambda p: numbers(read_geometry(p))  # noqa: E731
            yield Member("geometry", f"form {index}, {spaces}", make, read, numbers(right))
