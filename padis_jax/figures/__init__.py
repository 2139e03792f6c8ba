"""Figures for papers and for the eye: comparisons in CT windows, patches, training curves.

Every function returns a matplotlib Figure drawn without pyplot, so nothing global is changed; `save_figure` writes it.
Images are grey (or as they are, in colour), signed errors red above and blue below the truth, on a symmetric scale.
"""

from padis_jax.display import BONE, BRAIN, CT_DISPLAYS
from padis_jax.figures.curves import training_curves
from padis_jax.figures.pictures import comparison, gallery, images_row, maps, patch_grid
from padis_jax.figures.save import save_figure
from padis_jax.figures.volumes import montage, orthogonal, step_png

__all__ = [
    "BONE",
    "BRAIN",
    "CT_DISPLAYS",
    "comparison",
    "gallery",
    "images_row",
    "maps",
    "montage",
    "orthogonal",
    "patch_grid",
    "save_figure",
    "step_png",
    "training_curves",
]
