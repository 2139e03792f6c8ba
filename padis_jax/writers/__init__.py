"""Results -> files in the format that they came in: DICOM, NIfTI, 16-bit PNG and TIFF, .npz, HDF5.

Everything is encoded before the first byte is written, and each file appears atomically.
"""

from padis_jax.writers.pictures import write_png
from padis_jax.writers.result import Result, result
from padis_jax.writers.write import FORMATS, Format, check_format, write_result

__all__ = ["FORMATS", "Format", "Result", "check_format", "result", "write_png", "write_result"]
