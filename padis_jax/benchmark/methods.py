"""What is compared: for each name what it is, which network it needs, and to which problems it does not apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from padis_jax.baselines.cnn import CNNConfig, cnn_prior
from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.leakage import trained_on
from padis_jax.benchmark.networks import FLAGS, Networks, Trained
from padis_jax.prior import Prior, TilingName, patch_prior
from padis_jax.problems.registry import PROBLEMS, NamedProblem
from padis_jax.solvers.classical import CLASSICAL
from padis_jax.solvers.presets import Plan, preset, tv_preset, unsuited
from padis_jax.solvers.registry import METHODS as SOLVERS
from padis_jax.weights import Weights

SAMPLES = 8
VERSION = 2  # of all cells: raise it when an operator or a solver computes something else
TOO_FEW = ("tmpd",)  # the budgets here would pay for five of its steps
MORE = "an evaluation has more patches than one of a tiling"  # and counts as one all the same (prior.patch_prior)
AVERAGED = f"fixed overlapping patches averaged ({MORE})"


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
      text: what it is, in a line.
      family: how it is run.
      network: the kind that it needs, "" for none.
      solver: a name in the registry of solvers.
      tiling: of the patch prior.
      tilings: K random tilings averaged per evaluation.
      samples: runs whose mean is the image.
    """

    text: str
    family: Literal["start", "classical", "tv", "supervised", "solver"]
    network: Literal["", "patch", "whole", "cnn", "supervised"] = ""
    solver: str = ""
    tiling: TilingName = "random"
    tilings: int = 1
    samples: int = 1


class _Methods(Mapping[str, Method]):
    """The methods by name; read from the registry of solvers each time, so that a row there is a row here."""

    def __getitem__(self, name: str) -> Method:
        return _methods()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_methods())

    def __len__(self) -> int:
        return len(_methods())


METHODS = _Methods()


def _methods() -> dict[str, Method]:
    found = {
        "start": Method("filtered backprojection, the blurred image, repeated or nearest pixels", "start"),
        **{name: Method(f"{row.label}, {row.stop}", "classical") for name, row in CLASSICAL.items()},
        "tv": Method("total variation", "tv"),
        "supervised": Method("FBP (or start) + U-Net, trained for this very problem", "supervised", "supervised"),
    }
    fixed = [name for name, row in SOLVERS.items() if row.begin is not None]
    samplers = [name for name in SOLVERS if name not in (*fixed, *TOO_FEW)]

    def add(name: str, more: str, solver: str, network: str = "patch", **options: Any) -> None:
        label = SOLVERS[solver].label
        found[name] = Method(f"{label}{more}", "solver", network, solver, **options)  # type: ignore[arg-type]

    for name in fixed:
        add(f"{name}_cnn", " with a plain CNN denoiser", name, "cnn")
    for name in fixed:
        add(name, " with the patch prior", name)
    add("pnp_admm_average", f", {AVERAGED}", "pnp_admm", tiling="overlap_average")
    for name in samplers:
        add(name, " with the patch prior", name)
    for name in ("dds", "dps"):
        for k in (2, 4):
            add(f"{name}_tilings{k}", f", {k} tilings averaged per evaluation", name, tilings=k)
    for name in ("dds", "dps"):
        add(f"{name}_average", f", {AVERAGED}", name, tiling="overlap_average")
    for name in ("dds", "dps"):
        add(f"{name}_stitch", f", fixed overlapping patches stitched ({MORE})", name, tiling="overlap_stitch")
    for name in ("dds", "dps"):
        add(f"{name}_mean{SAMPLES}", f", mean of {SAMPLES} samples", name, samples=SAMPLES)
    for name in samplers:
        add(f"whole_{name}", " with the whole-image model", name, "whole")
    return found


def plan_of(method: Method, problem: NamedProblem, evaluations: int, trained: Trained | None = None) -> Plan | None:
    """How a method with a solver runs on a problem; None for the others.

    Falling levels stay in the range that a plain denoiser was trained for: beyond it plug-and-play diverges.
    """
    if method.family != "solver":
        return None
    plan = preset(method.solver, problem.kind, evaluations, tilings=method.tilings)
    trained_for = getattr(trained.content, "config", None) if trained else None
    if not isinstance(trained_for, CNNConfig) or getattr(plan.settings, "sigma", 0.0) > 0:
        return plan  # a fixed level is the preset's for every denoiser
    low, high = trained_for.sigma_min, trained_for.sigma_max
    return plan._replace(sigma_max=min(plan.sigma_max, high), sigma_min=min(max(plan.sigma_min, low), high))


def refusal(name: str, problem: str, pictures: Pictures, networks: Networks) -> str:
    """Why a method does not do a problem, in a few words; "" if it does.

    Args:
      name: in `METHODS`.
      problem: in `PROBLEMS`.
      pictures: the images of the problem.
      networks: what is at hand.
    """
    method = METHODS[name]
    if reason := unsuited(method.solver or name, problem):
        return reason
    if not method.network:
        return ""
    trained = networks.find(method.network, pictures.channels, problem)
    if trained is None:
        flag = "--supervised" if method.network == "supervised" else FLAGS[method.network, pictures.channels]
        return f"no network at hand: {flag}"
    return _misfit(method, trained, pictures)


def _misfit(method: Method, trained: Trained, pictures: Pictures) -> str:
    """Why the network does not suit the images, or ""."""
    content = trained.content
    if isinstance(content, Weights):
        if content.frame_for(pictures.shape) is None:
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
            content.frame_for(shape) or content.frame,
            tiling=method.tiling,
            tilings=method.tilings,
            overlap=overlap_of(content.frame.patch),
            patch_batch=patch_batch or None,
            mirror=content.mirrored,
        )
    return cnn_prior(content.config, content.params, shape)


def described(name: str, problem: str, evaluations: int, trained: Trained | None = None) -> dict[str, Any]:
    """All that decides a method's result on a problem's images, as JSON holds it: it is a part of a cell's identity.

    What decides nothing, or the rounding alone (patches per network call), stays out.

    Args:
      name: in `METHODS`.
      problem: in `PROBLEMS`.
      evaluations: the budget.
      trained: the network, if the method has one.
    """
    method = METHODS[name]
    found: dict[str, Any] = {"version": VERSION, "method": dataclasses.asdict(method), "problem": problem}
    del found["method"]["text"]
    found |= {"definition": PROBLEMS[problem].definition, "sigma": PROBLEMS[problem].sigma}
    found["network_sha256"] = trained.digest if trained else None
    if trained and method.tiling != "random":
        found["overlap"] = overlap_of(trained.content.frame.patch)
    if trained and isinstance(trained.content, Weights) and trained.content.mirrored and method.tiling == "random":
        found["mirror"] = True
    plan = plan_of(method, PROBLEMS[problem], evaluations, trained)
    if plan is not None:
        found["plan"] = plan.described()
    if method.family == "classical":
        found["iterations"] = CLASSICAL[name].iterations
    if method.family == "tv" or (plan is not None and plan.start == "tv"):
        found["tv"] = dataclasses.asdict(tv_preset(PROBLEMS[problem].kind))
    return found
