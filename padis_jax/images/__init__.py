"""Files -> float32 images in [0, 1], channel last, with the window that says what 0 and 1 stand for.

One module for each format turns a file into a `source.Source` (slices in the file's own values, read on demand), and
`read_images` scales it. Nothing in a file is executed: pickled objects are refused.
"""

from padis_jax.images.image_set import ImageSet
from padis_jax.images.read import open_source, read_images
from padis_jax.images.shaping import Shaping
from padis_jax.images.source import Origin, Source
from padis_jax.streamed import CroppedImages, StreamedImages
from padis_jax.window import HOUNSFIELD, PLAIN, Window

__all__ = [
    "HOUNSFIELD",
    "CroppedImages",
    "PLAIN",
    "ImageSet",
    "Origin",
    "Shaping",
    "Source",
    "StreamedImages",
    "Window",
    "open_source",
    "read_images",
]
