"""Whether a warning tells images that a prior was not trained on: padis_jax/blocks.py, docs/studies/fit.md.

    python -m studies.fit add weights/head_ct.safetensors --config configs/head_ct.py
    python -m studies.fit add FILE --config configs/photos.py --data.path data/photos_cc
    python -m studies.fit table --volume ch2.nii.gz --photos data/photos

`add` counts the blocks of the images that a config trains on and writes them into the metadata of a weights file; the
arrays stay as they are. `table` counts how often images are called strange to the head's prior: all slices that were
left out of its training, as they are and, of the six test and validation slices, as total variation gives them from 20
and 8 views, from 1e5 photons and from 120 degrees; the slices of another volume, and photographs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.blocks import LEAST, LIMIT, Blocks
from padis_jax.config import Config, load_config_file
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes
from padis_jax.images import Shaping, Window, read_images
from padis_jax.measurements.simulate import honest_measurement
from padis_jax.operators import ParallelBeam
from padis_jax.runs.training_data import load_data, training_blocks
from padis_jax.solvers.presets import tv_preset
from padis_jax.solvers.tv import total_variation
from padis_jax.split import HEAD_CT, HEAD_CT_TEST, HEAD_CT_VALIDATION, split_slices
from padis_jax.weights import load_weights, with_metadata


@one_line_errors()
def main() -> None:
    """Adds statistics, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    adding = parts.add_parser("add", help="to a weights file")
    adding.add_argument("weights", type=Path)
    adding.add_argument("--config", required=True, help="that the weights were trained with")
    adding.add_argument("--data.path", dest="path", default="", help="where its images are, if not where it says")
    counting = parts.add_parser("table", help="false alarms, and images that are found")
    counting.add_argument("--weights", default="weights/head_ct.safetensors")
    counting.add_argument("--volume", required=True, help="another volume, NIfTI")
    counting.add_argument("--photos", required=True, help="folder of photographs")
    args = parser.parse_args()
    if args.part == "add":
        add(args.weights, args.config, args.path)
    else:
        table(args.weights, args.volume, args.photos)


def add(path: Path, config_file: str, images: str) -> None:
    """Counts and writes."""
    load_weights(path, volumes=True)
    config = load_config_file(config_file, Config)
    if images:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=images))
    blocks = training_blocks(load_data(config))
    if blocks is None:
        raise UserError(f"{config.data.path}: too few or too small images to count blocks of")
    write_bytes(path, with_metadata(path.read_bytes(), {"blocks": json.dumps(dataclasses.asdict(blocks))}))
    digest = load_weights(path, volumes=True).digest
    print(f"{path}: training images stay within {blocks.usual:.2f} of each other; SHA-256 {digest}")


def table(weights: str, volume: str, photos: str) -> None:
    """One line for each kind of image."""
    loaded = load_weights(weights)
    if loaded.blocks is None:
        raise UserError(f"{weights}: has no statistics; python -m studies.fit add {weights} --config ...")
    blocks, shape = loaded.blocks, loaded.frame.image_shape
    print(f"strange: above {max(LEAST, LIMIT * blocks.usual):.2f}\n")
    print("| images | number | called strange | median distance | least | largest |\n|---|---|---|---|---|---|")
    head = read_images(HEAD_CT)
    split = split_slices(len(head.names))
    left = sorted({*split.test, *split.validation, *split.gap})
    line("left-out slices", blocks, (np.asarray(head.images[[k]])[0] for k in left))
    few = [np.asarray(head.images[[k]])[0] for k in (*HEAD_CT_TEST, *HEAD_CT_VALIDATION)]
    for views, photons, span in ((20, 0.0, 180), (20, 1e5, 180), (8, 0.0, 180), (120, 0.0, 120)):
        name = f"six of them, total variation of {views} views of {span} degrees"
        name += f", {photons:g} photons" if photons else ""
        line(name, blocks, smoothed(few, views, photons, np.radians(span)))
    other = read_images(volume, window=Window("1", 0.0, 254.0), shaping=Shaping(resize=shape))
    line("another volume", blocks, (np.asarray(other.images[[k]])[0] for k in range(20, len(other.names) - 20, 5)))
    pictures = read_images(photos, shaping=Shaping(resize=shape, grey=True))
    line("photographs", blocks, (np.asarray(pictures.images[[k]])[0] for k in range(len(pictures.names))))


def line(name: str, blocks: Blocks, images: Iterable[np.ndarray]) -> None:
    """Prints it."""
    found = [(blocks.distance(image), blocks.strange(image)) for image in images]
    far = [distance for distance, _ in found]
    print(
        f"| {name} | {len(found)} | {sum(strange for _, strange in found)} | {np.median(far):.2f} | {min(far):.2f} | "
        f"{max(far):.2f} |",
        flush=True,
    )


def smoothed(images: Iterable[np.ndarray], views: int, photons: float, span: float) -> Iterator[np.ndarray]:
    """What total variation makes of scans of images, with its preset."""
    angles = (np.arange(views) + 0.5) * span / views
    for image in images:
        truth = jnp.asarray(image[..., 0])
        operator = ParallelBeam(image_shape=image.shape[:2], angles=angles, detector_count=2 * truth.shape[1])
        if photons:
            y, std = honest_measurement(jax.random.key(0), truth, operator, photons=photons)[:2]
            noise = jnp.sqrt(jnp.mean(jnp.square(std)))
            found = total_variation(y, operator, settings=tv_preset("counts"), noise_std=noise)
        else:
            found = total_variation(operator(truth), operator, settings=tv_preset("ct"))
        yield np.asarray(found.image).reshape(image.shape)


if __name__ == "__main__":
    main()
