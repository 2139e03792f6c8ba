"""A problem small enough for matrices: a Gaussian image and a random operator, in float64 and in JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from padis_jax.operators.linear import LinearOperator
from padis_jax.patches import Frame
from padis_jax.prior import Prior
from padis_jax.solvers.problem import Problem

FRAME = Frame((3, 4), 2, (2, 3))  # margins (1, 2), padded (5, 8)
PLANE = (*FRAME.padded_shape, 1)


class Gaussian(NamedTuple):
    """x ~ N(mean, covariance) on the plane (zero on the margin), y = A crop(x)."""

    mean: np.ndarray  # [n]
    covariance: np.ndarray  # [n, n]
    crop: np.ndarray  # [pixels, n]
    matrix: np.ndarray  # A: [measurements, pixels]
    norm: float
    y: np.ndarray

    def wiener(self, sigma):
        """W of D = mean + W (x - mean)."""
        c = self.covariance
        return c @ np.linalg.inv(c + sigma**2 * np.eye(len(c)))


def denoise(matrices, key, plane, sigma):
    """The exact denoiser of a Gaussian image, D = mean + C (C + sigma^2)^-1 (x - mean)."""
    mean, eigenvalues, vectors = matrices
    d = plane.reshape(-1) - mean
    shrunk = vectors @ ((vectors.T @ d) * eigenvalues / (eigenvalues + sigma**2))
    return (mean + shrunk).reshape(plane.shape)


def shrink(factor, key, plane, sigma):
    """A denoiser with one number to it."""
    return factor * plane


def make(scale=1.0):
    """The matrices, and the same as (problem, prior, operator) in JAX. `scale` multiplies operator and measurement."""
    rng = np.random.default_rng(0)
    pixels = 12
    n = int(np.prod(PLANE))
    crop = np.asarray(FRAME.pad(jnp.arange(1.0, pixels + 1).reshape(3, 4, 1))).ravel()
    crop = (crop[None, :] == np.arange(1, pixels + 1)[:, None]).astype(float)
    half = rng.standard_normal((pixels, pixels)) / 4
    covariance = crop.T @ (half @ half.T + 0.05 * np.eye(pixels)) @ crop
    mean = crop.T @ rng.uniform(0.2, 0.8, pixels)
    matrix = scale * rng.standard_normal((7, pixels)) * 3
    truth = mean + np.linalg.cholesky(covariance + 1e-12 * np.eye(n)) @ rng.standard_normal(n)
    y = matrix @ crop @ truth + 0.1 * scale * rng.standard_normal(7)
    norm = float(np.linalg.norm(matrix, 2))
    gaussian = Gaussian(mean, covariance, crop, matrix, norm, y)

    eigenvalues, vectors = np.linalg.eigh(covariance)
    f32 = [jnp.asarray(a, jnp.float32) for a in (mean, np.maximum(eigenvalues, 0), vectors)]
    prior = Prior(Partial(denoise, tuple(f32)), FRAME)
    a = jnp.asarray(matrix, jnp.float32)
    operator = LinearOperator(
        lambda image: a @ image.ravel(), lambda r: (a.T @ r).reshape(3, 4, 1), (3, 4, 1), (7,), jnp.float32(norm)
    )
    measurement = jnp.asarray(y, jnp.float32)
    return gaussian, Problem(operator, prior.denoise, measurement, FRAME), prior


def affine_map(step, key, noise):
    """(F [n, n], c [n]) of a step that is affine in the state, by applying it to basis vectors with the key fixed."""
    n = int(np.prod(PLANE))
    states = jnp.concatenate([jnp.zeros((1, n)), jnp.eye(n)]).reshape(n + 1, *PLANE)
    out = jax.jit(jax.vmap(lambda x: step(key, x, noise)[0]))(states)
    out = np.asarray(out, np.float64).reshape(n + 1, n)
    return (out[1:] - out[0]).T, out[0]


def relative(a, b):
    """||a - b|| / ||b||."""
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
