"""Noise levels sigma: how training draws and weights them, and the ladders that sampling descends.

training (EDM, arXiv 2206.00364, table 1):  ln sigma ~ N(mean, std^2), clipped to [sigma_min, sigma_max]
                                            weight(sigma) = (sigma^2 + s^2) / (sigma s)^2,  s = sigma_data
geometric ladder:  sigma_i = sigma_max (sigma_min / sigma_max)^(i / (L - 1)),  i = 0 .. L - 1
EDM ladder:        sigma_i = (sigma_max^(1/rho) + i / (L - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  rho = 7 by
                  default
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.fields import check_count, check_fields, check_real

RHO = 7.0
SIGMA_RANGE = 1e-8, 1e8  # of noise levels, whose squares float32 can hold


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """The noise levels that training draws.

    Attributes:
      log_mean: mean of ln sigma.
      log_std: standard deviation of ln sigma. The paper's -1.2 and 1.2 put sigma = 0.003 at 3.8 deviations, so that the
        low end of a reconstruction's ladder is hardly trained; wider settings train it.
      sigma_min: smallest sigma, in image units.
      sigma_max: largest sigma.
    """

    log_mean: float = -1.2
    log_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 40.0

    def __post_init__(self) -> None:
        check_fields(self, "noise.")
        if not (0 < self.log_std <= 100 and abs(self.log_mean) <= 100):
            raise ValueError(
                f"noise: log_mean {self.log_mean} and log_std {self.log_std}: within 100, and log_std positive"
            )
        low, high = SIGMA_RANGE
        if not low <= self.sigma_min < self.sigma_max <= high:
            raise ValueError(
                f"noise: 0 < sigma_min < sigma_max is needed, within {low:g} and {high:g}, got {self.sigma_min} and "
                f"{self.sigma_max}"
            )


def draw_sigma(key: Array, config: NoiseConfig, count: int) -> Array:
    """Noise levels for a training batch: float32 [count]."""
    sigma = jnp.exp(config.log_mean + config.log_std * jax.random.normal(key, (count,), jnp.float32))
    return jnp.clip(sigma, config.sigma_min, config.sigma_max)


def loss_weight(sigma: Array, sigma_data: float) -> Array:
    """The weight that makes the loss of an untrained network equal at every sigma."""
    return (jnp.square(sigma) + sigma_data**2) / jnp.square(sigma * sigma_data)


def geometric_ladder(levels: int, sigma_max: float, sigma_min: float) -> np.ndarray:
    """`levels` sigmas from sigma_max down to sigma_min with a constant ratio: float32 [levels]."""
    check_ladder(levels, sigma_max, sigma_min)
    return np.geomspace(sigma_max, sigma_min, levels).astype(np.float32)


def edm_ladder(levels: int, sigma_max: float, sigma_min: float, rho: float = RHO) -> np.ndarray:
    """`levels` sigmas from sigma_max down to sigma_min, denser at the low end than evenly spaced: float32 [levels].

    Args:
      levels: how many.
      sigma_max: the first.
      sigma_min: the last.
      rho: 1 is evenly spaced, infinity the geometric ladder.
    """
    check_ladder(levels, sigma_max, sigma_min)
    check_real("rho", rho)
    if rho < 1:
        raise UserError(f"rho is {rho}: it must be at least 1, where levels are evenly spaced")
    return (np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), levels) ** rho).astype(np.float32)


def check_ladder(levels: int, sigma_max: float, sigma_min: float) -> None:
    """Raises UserError unless the levels are a whole number of them, descend, and are such as float32 can square."""
    check_count("levels", levels)
    check_real("sigma_max", sigma_max)
    check_real("sigma_min", sigma_min)
    low, high = SIGMA_RANGE
    if not low <= sigma_min <= sigma_max <= high or (levels > 1 and sigma_min == sigma_max):
        raise UserError(
            f"sigma_max is {sigma_max} and sigma_min {sigma_min}: they must be positive and descend (0 < sigma_min <= "
            f"sigma_max), between {low:g} and {high:g}, whose squares float32 can hold"
        )
