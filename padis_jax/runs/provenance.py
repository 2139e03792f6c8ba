"""Which slices a network was trained on: its file says what it was trained on, and what it started from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.images.choice import described
from padis_jax.serialization import from_json
from padis_jax.split import limited, same_images, split_of
from padis_jax.weights import Weights


def trained_slices(weights: Weights, path: str, volumes: Mapping[str, int], total: int) -> set[int]:
    """The numbers of the images of a set that the network was trained on; none where its file does not tell.

    Weights that others were the start of (`run.start_weights`) have seen what those had seen.

    Args:
      weights: of the network.
      path: of the set.
      volumes: of the set (`ImageSet.volumes`).
      total: images in the set.
    """
    found: set[int] = set()
    for provenance in _generations(weights.provenance):
        trained, slices = _of_training(provenance, volumes, total)
        if same_images(path, trained):
            found.update(slices)
    return found


def trained_note(weights: Weights, name: str, path: str, images: ImageSet, chosen: Sequence[int]) -> str:
    """A note on those of the chosen images that the network was trained on, or "".

    Args:
      weights: of the network.
      name: of their file.
      path: of the images.
      images: all of them.
      chosen: their numbers.
    """
    seen = trained_slices(weights, path, images.volumes, len(images.names)) & set(chosen)
    if not seen:
        return ""
    what = f"{len(seen)} of {len(chosen)} images" if len(chosen) > 1 else "this image"
    return f"{name} was trained on {what} ({described(tuple(sorted(seen)))}), so scores there say little of others"


def _generations(provenance: Any) -> Iterator[Mapping[str, Any]]:
    """A training's record, and those of what it started from."""
    while isinstance(provenance, Mapping):
        yield provenance
        start = provenance.get("start_weights")
        provenance = start.get("provenance") if isinstance(start, Mapping) else None


def _of_training(provenance: Mapping[str, Any], volumes: Mapping[str, int], total: int) -> tuple[str, Sequence[int]]:
    """(what was trained on, indices, if that is the set that the images are of)."""
    config = provenance.get("config")
    try:
        data = from_json(DataConfig, config.get("data") if isinstance(config, Mapping) else None)
        split = split_of(data, dict(volumes), total)
    except UserError:  # weights of another program, or settings that do not fit this set
        return "", ()
    return data.path, limited(split.train, data.limit)
