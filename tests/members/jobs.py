"""Finished folders of results by the command itself, of which something changed, and the same command again.

A batch of three measurements, or a volume of three slices, is reconstructed once and copied. What is right: the command
ends with an image of every measurement that is there now, the others as they were; or with one line.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tiny import write_weights

from members import EITHER, Member
from members.metadata import text_of
from padis_jax.cli.sample import main
from padis_jax.errors import UserError
from padis_jax.operators import ParallelBeam

KIND, COUNT = "job folders", 3
QUICK = (
    "--scan.views 5 --scan.bins 24 --tv.weight 0.1 --tv.iterations 3 --solver.levels 2 --solver.cg-steps 1 "
    "--scan.protocol paper --quiet --no-lock --batch"
).split()
CLOSE = 1e-3  # a batch of other size rounds differently
_TEXTS = (b"", b"[]", b"null", b"3", b'"a"', b"{", b"\0\0", b"[" * 100_000, b"9" * 5000, b"\xff\xfe")


def _images() -> np.ndarray:
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    return np.stack([0.7 * (np.hypot(x, y) < 0.3 + 0.2 * i) for i in range(COUNT + 1)]).astype(np.float32)


def _write(folder: Path, images: np.ndarray) -> None:
    """The measurements of a batch, and a volume, of the same images."""
    operator = ParallelBeam(image_shape=(16, 16), angles=(np.arange(5) + 0.5) * np.pi / 5, detector_count=24)
    (folder / "scans").mkdir(exist_ok=True)
    for index, image in enumerate(images):
        np.savez(folder / "scans" / f"s{index}.npz", sinogram=np.asarray(operator(image)))
    np.save(folder / "x.npy", images)


def _words(what: str) -> list[str]:
    """Within the folder: where it lies is a setting that results depend on."""
    chosen = {"batch": ["--measurements", "scans"], "volume": ["--image.path", "x.npy", "--image.index", "all"]}
    return ["--weights", "w.safetensors", "--workdir", "out", *chosen[what], *QUICK, "2"]


@functools.cache
def _finished(what: str, last: int) -> tuple[tempfile.TemporaryDirectory[str], np.ndarray]:
    """A folder that the command has finished, the last image being number `last`; and the images that it wrote."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name)
    write_weights(path / "w.safetensors")
    _write(path, _images()[[0, 1, last]])
    with contextlib.chdir(path):
        main(_words(what))
    return folder, _written(path, what)


def _items(folder: Path, what: str) -> list[Path]:
    names = ("s0", "s1", "s2") if what == "batch" else ("slices/00000", "slices/00001", "slices/00002")
    return [folder / "out" / f"{name}.npz" for name in names]


def _written(folder: Path, what: str) -> np.ndarray:
    found = []
    for path in _items(folder, what):
        with np.load(path) as file:
            found.append(file[file.files[-1]])
    return np.stack(found)


def _lines(change: Callable[[list[bytes], np.random.Generator], list[bytes]]) -> Callable[..., None]:
    def changed(folder: Path, what: str, rng: np.random.Generator) -> None:
        path = folder / "out" / "manifest.jsonl"
        path.write_bytes(b"\n".join(change(path.read_bytes().splitlines(), rng)) + b"\n" * int(rng.integers(2)))

    return changed


def _text(name: str) -> Callable[..., None]:
    def changed(folder: Path, what: str, rng: np.random.Generator) -> None:
        path = folder / "out" / name
        text = _TEXTS[rng.integers(len(_TEXTS))] if rng.random() < 0.5 else text_of(rng, json.loads(path.read_bytes()))
        path.write_bytes(text)

    return changed


def _output(folder: Path, what: str, rng: np.random.Generator) -> None:
    path = _items(folder, what)[rng.integers(COUNT)]
    data = path.read_bytes()
    kinds = (b"", data[: rng.integers(len(data))], bytes(len(data)), data + b"\0", None)
    made = kinds[rng.integers(len(kinds))]
    path.unlink() if made is None else path.write_bytes(made)


def _replaced(folder: Path, what: str, rng: np.random.Generator) -> None:
    _write(folder, _images()[[0, 1, 3]])


# name -> (what changes in the folder, number of the last image afterwards).
CHANGES: dict[str, tuple[Callable[..., None], int]] = {
    "measurement replaced": (_replaced, COUNT),
    "output damaged": (_output, COUNT - 1),
    "line cut off": (_lines(lambda lines, rng: [*lines[:-1], lines[-1][: rng.integers(len(lines[-1]))]]), COUNT - 1),
    "lines gone": (_lines(lambda lines, rng: lines[: rng.integers(len(lines))]), COUNT - 1),
    "line twice": (_lines(lambda lines, rng: [*lines, lines[rng.integers(len(lines))]]), COUNT - 1),
    "line of another type": (_lines(lambda lines, rng: [_TEXTS[1 + rng.integers(9)], *lines]), COUNT - 1),
    "field changed": (_lines(lambda lines, rng: [text_of(rng, json.loads(lines[0])), *lines[1:]]), COUNT - 1),
    "job.json": (_text("job.json"), COUNT - 1),
    "results.json": (_text("results.json"), COUNT - 1),
    "nothing": (lambda *_: None, COUNT - 1),
}


def members(seed: int, count: int) -> Iterator[Member]:
    """Each change in turn, of a batch and of a volume."""
    for case in range(count):
        name, what = list(CHANGES)[case // 2 % len(CHANGES)], ("batch", "volume")[case % 2]
        change, last = CHANGES[name]

        def make(folder: Path, what: str = what, case: int = case, change: Callable[..., None] = change) -> Path:
            shutil.copytree(_finished(what, COUNT - 1)[0].name, folder, dirs_exist_ok=True)
            change(folder, what, np.random.default_rng([seed, 7, case]))
            return folder / "out"

        def read(path: Path, what: str = what, last: int = last) -> None:
            folder, said = path.parent, io.StringIO()
            try:
                with contextlib.redirect_stderr(said), contextlib.chdir(folder):
                    main(_words(what))
            except SystemExit:
                assert said.getvalue().startswith("error: ") and said.getvalue().count("\n") == 1, said.getvalue()
                raise UserError(said.getvalue().strip()) from None
            right = _finished(what, last)[1]
            assert np.abs(_written(folder, what) - right).max() < CLOSE, "an image is not that of its measurement"
            done = [json.loads(line) for line in (folder / "out" / "manifest.jsonl").read_text().splitlines()]
            assert sum(isinstance(line, dict) and line["status"] == "done" for line in done) >= COUNT, done

        def command(path: Path, what: str = what, make: Callable[[Path], Path] = make) -> list[str]:
            shutil.rmtree(path)  # which has been mended
            make(path.parent)
            return ["sample", *_words(what)]

        yield Member(KIND, f"{name}, {what} {case}", make, read, EITHER, command=command)
