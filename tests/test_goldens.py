"""Small images that must not change: every solver and every kind of operator, 64 x 64 pixels, few levels.

`python tests/test_goldens.py` writes the fixture again, which only a change of what is computed may need.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params

from padis_jax import DiffPIR, PlugAndPlay, patch_prior, reconstruct
from padis_jax.operators import Blur, Downsample, FanBeam, Inpaint, ParallelBeam, gaussian_kernel
from padis_jax.patches import frame_for

SIDE = 64
FIXTURE = Path(__file__).parent / "fixtures" / "goldens.npz"
SOLVERS = ("dds", "dps", "langevin", "ddnm", "diffpir", "predictor_corrector", "daps", "tmpd", "pnp_admm")
ANGLES = (np.arange(6) + 0.5) * np.pi / 6
OPERATORS = {
    "parallel": lambda: ParallelBeam(image_shape=(SIDE, SIDE), angles=ANGLES, detector_count=2 * SIDE),
    "fan": lambda: FanBeam(
        image_shape=(SIDE, SIDE),
        angles=2 * ANGLES,
        detector_count=2 * SIDE,
        source_distance=float(SIDE),
        detector_distance=float(SIDE),
    ),
    "blur": lambda: Blur(image_shape=(SIDE, SIDE), kernel=gaussian_kernel(1.5), boundary="circular"),
    "downsample": lambda: Downsample(image_shape=(SIDE, SIDE), factor=4, method="block"),
    "inpaint": lambda: Inpaint(mask=jax.random.bernoulli(jax.random.key(5), 0.5, (SIDE, SIDE))),
}
ROUNDING = 1e-4  # of the norm: other CPUs round differently, by up to 4e-5 (DDNM, whose pseudo-inverse amplifies it)
CASES = [("parallel", solver) for solver in SOLVERS] + [(name, "dds") for name in OPERATORS if name != "parallel"]


def image():
    """A disc with a hole and a gradient, [64, 64, 1]."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    disc = (np.hypot(x, y) < 0.8) & (np.hypot(x - 0.3, y) > 0.2)
    return jnp.asarray((disc * (0.6 + 0.2 * x))[..., None], jnp.float32)


def solve(operator, solver):
    """The image of a solver for a noiseless measurement, in 4 levels from half of the truth."""
    made = OPERATORS[operator]()
    prior = patch_prior(NETWORK, random_params(), frame_for((SIDE, SIDE), 16))
    start = 0.5 * image()
    chosen = {"diffpir": DiffPIR(cg_steps=5), "pnp_admm": PlugAndPlay(sigma=0.03, weight=0.01, cg_steps=5)}
    method = chosen.get(solver, solver)  # more steps amplify rounding
    return reconstruct(
        jax.random.key(7), made(image()), made, prior, solver=method, levels=4, sigma_max=0.3, start=start
    ).image


@pytest.mark.parametrize(("operator", "solver"), CASES)
def test_the_image_is_the_one_on_file(operator, solver):
    with np.load(FIXTURE) as golden:
        expected = golden[f"{operator}_{solver}"]
    found = np.asarray(solve(operator, solver))
    assert np.linalg.norm(found - expected) <= ROUNDING * np.linalg.norm(expected)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **{"_".join(case): np.asarray(solve(*case)) for case in CASES})
