"""Patch-based diffusion priors for inverse problems (PaDIS, arXiv 2406.02462) in JAX.

A name is imported when it is first used, so that `import padis_jax` costs nothing.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "images": ["read_images"],
    "metrics": ["psnr", "ssim"],
    "operators": ["Blur", "ConeBeam", "Downsample", "FanBeam", "Inpaint", "ParallelBeam", "from_functions", "stack"],
    "prior": ["patch_prior"],
    "solvers.daps": ["DAPS"],
    "solvers.ddnm": ["DDNM"],
    "solvers.dds": ["DDS"],
    "solvers.diffpir": ["DiffPIR"],
    "solvers.dps": ["DPS"],
    "solvers.generate": ["generate"],
    "solvers.langevin": ["Langevin"],
    "solvers.pigdm": ["PiGDM"],
    "solvers.plug_and_play": ["PlugAndPlay"],
    "solvers.predictor_corrector": ["PredictorCorrector"],
    "solvers.reconstruct": ["reconstruct"],
    "solvers.red_diff": ["REDDiff"],
    "solvers.samples": ["draw_samples"],
    "solvers.tmpd": ["TMPD"],
    "solvers.tv": ["TV", "total_variation"],
    "training_loop": ["fit"],
    "volume_weights": ["load_volume_prior"],
    "weights": ["load_prior"],
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:  # the same for type checkers and editors, which would take __getattr__ to accept any name
    from padis_jax.images import read_images as read_images
    from padis_jax.metrics import psnr as psnr
    from padis_jax.metrics import ssim as ssim
    from padis_jax.operators import Blur as Blur
    from padis_jax.operators import ConeBeam as ConeBeam
    from padis_jax.operators import Downsample as Downsample
    from padis_jax.operators import FanBeam as FanBeam
    from padis_jax.operators import Inpaint as Inpaint
    from padis_jax.operators import ParallelBeam as ParallelBeam
    from padis_jax.operators import from_functions as from_functions
    from padis_jax.operators import stack as stack
    from padis_jax.prior import patch_prior as patch_prior
    from padis_jax.solvers.daps import DAPS as DAPS
    from padis_jax.solvers.ddnm import DDNM as DDNM
    from padis_jax.solvers.dds import DDS as DDS
    from padis_jax.solvers.diffpir import DiffPIR as DiffPIR
    from padis_jax.solvers.dps import DPS as DPS
    from padis_jax.solvers.generate import generate as generate
    from padis_jax.solvers.langevin import Langevin as Langevin
    from padis_jax.solvers.pigdm import PiGDM as PiGDM
    from padis_jax.solvers.plug_and_play import PlugAndPlay as PlugAndPlay
    from padis_jax.solvers.predictor_corrector import PredictorCorrector as PredictorCorrector
    from padis_jax.solvers.reconstruct import reconstruct as reconstruct
    from padis_jax.solvers.red_diff import REDDiff as REDDiff
    from padis_jax.solvers.samples import draw_samples as draw_samples
    from padis_jax.solvers.tmpd import TMPD as TMPD
    from padis_jax.solvers.tv import TV as TV
    from padis_jax.solvers.tv import total_variation as total_variation
    from padis_jax.training_loop import fit as fit
    from padis_jax.volume_weights import load_volume_prior as load_volume_prior
    from padis_jax.weights import load_prior as load_prior
else:

    def __getattr__(name: str) -> Any:
        """A public name, or a module of the package (PEP 562)."""
        if name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
            value = importlib.import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
