"""Whether a network was trained on an image that it is tested on: its file says what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from padis_jax.baselines.file import Baseline
from padis_jax.benchmark.data import Pictures
from padis_jax.runs.provenance import trained_slices
from padis_jax.split import same_images
from padis_jax.weights import Weights


def trained_on(content: Weights | Baseline[Any], pictures: Pictures) -> list[int]:
    """The indices of the pictures that the network was trained on, sorted; none where its file does not tell."""
    if isinstance(content, Weights):
        seen = trained_slices(content, pictures.path, dict(pictures.volumes), pictures.total)
    else:
        path, slices = _of_baseline(content)
        seen = set(slices) if same_images(pictures.path, path) else set()
    return sorted(seen & set(pictures.indices))


def _of_baseline(baseline: Baseline[Any]) -> tuple[str, Sequence[int]]:
    path, slices = baseline.about.get("images"), baseline.about.get("slices")
    if not (isinstance(path, str) and isinstance(slices, list)):
        return "", ()
    return path, [index for index in slices if isinstance(index, int)]
