"""What is compared: for each name what it is, which network it needs, and to which problems it does not apply."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from padis_jax.baselines.cnn import cnn_prior
from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.leakage import trained_on
from padis_jax.benchmark.networks import FLAGS, Networks, Trained
from padis_jax.prior import Prior, TilingName, patch_prior
from padis_jax.problems.registry import TASKS
from padis_jax.solvers.presets import plug_and_play_settings, schedule, tv_settings, unsuited
from padis_jax.solvers.reconstruct import SOLVERS
from padis_jax.weights import Weights

SAMPLES = 8
VERSION = 1  # of all cells: raise it when an operator or a solver computes something else
SAMPLERS = tuple(name for name in SOLVERS if name != "tmpd")  # of its steps the budgets here would pay for five
MORE = "an evaluation has more patches than one of a tiling"  # and counts as one all the same (prior.patch_prior)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
      text: what it is, in a line.
      family: how it is run.
      network: the kind that it needs, "" for none.
      solver: of the diffusion methods, a name in `SOLVERS`; of plug-and-play "admm" or "red".
      tiling: of the patch prior.
      tilings: K random tilings averaged per evaluation.
      samples: runs whose mean is the image.
    """

    text: str
    family: Literal["start", "tv", "supervised", "plug_and_play", "diffusion"]
    network: Literal["", "patch", "whole", "cnn", "supervised"] = ""
    solver: str = ""
    tiling: TilingName = "random"
    tilings: int = 1
    samples: int = 1


def _diffusion(text: str, solver: str, network: Literal["patch", "whole"] = "patch", **more: Any) -> Method:
    return Method(text, "diffusion", network, solver, **more)


METHODS: dict[str, Method] = {
    "start": Method("filtered backprojection, the blurred image, repeated or nearest pixels", "start"),
    "tv": Method("total variation", "tv"),
    "supervised": Method("FBP (or start) + U-Net, trained for this very problem", "supervised", "supervised"),
    "pnp_admm_cnn": Method("PnP-ADMM, plain CNN denoiser", "plug_and_play", "cnn", "admm"),
    "pnp_red_cnn": Method("PnP-RED, plain CNN denoiser", "plug_and_play", "cnn", "red"),
    "pnp_admm": Method("PnP-ADMM, patch prior at one noise level", "plug_and_play", "patch", "admm"),
    "pnp_red": Method("PnP-RED, patch prior at one noise level", "plug_and_play", "patch", "red"),
    "pnp_admm_average": Method(
        f"PnP-ADMM, fixed overlapping patches averaged ({MORE})", "plug_and_play", "patch", "admm", "overlap_average"
    ),
    **{name: _diffusion(f"{name} on the patch prior", name) for name in SAMPLERS},
    **{
        f"{name}_tilings{k}": _diffusion(f"{name}, {k} tilings averaged per evaluation", name, tilings=k)
        for name in ("dds", "dps")
        for k in (2, 4)
    },
    **{
        f"{name}_average": _diffusion(
            f"{name}, fixed overlapping patches averaged ({MORE})", name, tiling="overlap_average"
        )
        for name in ("dds", "dps")
    },
    **{
        f"{name}_stitch": _diffusion(
            f"{name}, fixed overlapping patches stitched ({MORE})", name, tiling="overlap_stitch"
        )
        for name in ("dds", "dps")
    },
    **{
        f"{name}_mean{SAMPLES}": _diffusion(f"mean of {SAMPLES} {name} samples", name, samples=SAMPLES)
        for name in ("dds", "dps")
    },
    **{f"whole_{name}": _diffusion(f"{name} on the whole-image model", name, "whole") for name in SAMPLERS},
}


def refusal(name: str, task: str, pictures: Pictures, networks: Networks) -> str:
    """Why a method does not do a problem, in a few words; "" if it does.

    Args:
      name: in `METHODS`.
      task: in `TASKS`.
      pictures: the images of the problem.
      networks: what is at hand.
    """
    method = METHODS[name]
    if reason := unsuited(method.solver, task):
        return reason
    if not method.network:
        return ""
    trained = networks.find(method.network, pictures.channels, task)
    if trained is None:
        flag = "--supervised" if method.network == "supervised" else FLAGS[method.network, pictures.channels]
        return f"no network at hand: {flag}"
    return _misfit(method, trained, pictures)


def _misfit(method: Method, trained: Trained, pictures: Pictures) -> str:
    """Why the network does not suit the images, or ""."""
    content = trained.content
    if isinstance(content, Weights):
        if content.frame.image_shape != pictures.shape:
            return f"network of {content.frame.image_shape} pixels, images of {pictures.shape}"
        if content.window != pictures.window:
            return f"network of window {content.window}, images of {pictures.window}"
        offsets = content.frame.margin[0] * content.frame.margin[1]
        if method.tilings > max(1, offsets):
            return f"the frame has {offsets} tilings only"
        if method.tiling != "random" and content.frame.patch > min(pictures.shape):
            return "the patch is larger than the image"
    elif method.family == "supervised":
        if (trained_for := content.about.get("image_shape")) != list(pictures.shape):
            return f"network for images of {trained_for} pixels, not {list(pictures.shape)}"
        if content.config.image_channels != pictures.channels:
            return f"network for {content.config.image_channels} channels, images of {pictures.channels}"
    if shared := trained_on(content, pictures):
        return f"it was trained on test slice {shared[0]}"
    return ""


def overlap_of(patch: int) -> int:
    """Pixels that fixed overlapping patches share: 8, or a quarter of a small patch."""
    return min(8, patch // 4)


def prior_of(method: Method, trained: Trained, shape: tuple[int, int], patch_batch: int = 0) -> Prior:
    """The denoiser of whole images that a method takes.

    Args:
      method: which.
      trained: its network.
      shape: of the images, (H, W).
      patch_batch: patches per network call at most; 0 for all at once.
    """
    content = trained.content
    if isinstance(content, Weights):
        return patch_prior(
            content.network,
            content.params,
            content.frame,
            tiling=method.tiling,
            tilings=method.tilings,
            overlap=overlap_of(content.frame.patch),
            patch_batch=patch_batch or None,
        )
    return cnn_prior(content.config, content.params, shape)


def described(name: str, task: str, evaluations: int, trained: Trained | None = None) -> dict[str, Any]:
    """All that decides a method's result on a task's images, as JSON holds it: it is a part of a cell's identity.

    What decides nothing, or the rounding alone (patches per network call), stays out.

    Args:
      name: in `METHODS`.
      task: in `TASKS`.
      evaluations: the budget.
      trained: the network, if the method has one.
    """
    method = METHODS[name]
    found: dict[str, Any] = {"version": VERSION, "method": dataclasses.asdict(method), "task": task}
    del found["method"]["text"]
    found |= {"definition": TASKS[task].definition, "sigma": TASKS[task].sigma}
    found["network_sha256"] = trained.digest if trained else None
    if trained and method.tiling != "random":
        found["overlap"] = overlap_of(trained.content.frame.patch)
    if method.family == "tv":
        found["tv"] = dataclasses.asdict(tv_settings(TASKS[task]))
    elif method.family == "plug_and_play":
        found["plug_and_play"] = dataclasses.asdict(plug_and_play_settings(method.solver, TASKS[task]))
        found |= {"iterations": evaluations, "start": "tv", "tv": dataclasses.asdict(tv_settings(TASKS[task]))}
    elif method.family == "diffusion":
        found["schedule"] = schedule(method.solver, TASKS[task], evaluations, method.tilings).described()
        if found["schedule"]["start"] == "tv":
            found["tv"] = dataclasses.asdict(tv_settings(TASKS[task]))
    return found
