"""Converts a checkpoint, another program's or ours, into a weights file, and that into a checkpoint.

    padis-convert authors.pkl prior.safetensors --image-shape 256 256 --patch 56 --low 0 --high 1
          a pickled network of EDM or of the PaDIS authors, with the frame of the paper's CT
    padis-convert state.pt prior.safetensors --image-shape 256 256 --patch 56 --unit HU --low -1000 --high 1000
          a state dict from torch.save, for images of that window
    padis-convert runs/mine prior.safetensors    the newest checkpoint of a training run
    padis-convert prior.safetensors runs/more    a checkpoint for train.py --workdir runs/more

Nothing in a file is executed, and PyTorch is not needed: see docs/weights.md. What a foreign file does not say must be
given: the size of the images and of the patch (positions depend on both) and what 0 and 1 stand for.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

import padis_jax
from padis_jax import checkpoint
from padis_jax.cli.arguments import parse, split_output_options
from padis_jax.cli.commands import called_as
from padis_jax.cli.help_text import Page
from padis_jax.config import Config
from padis_jax.conversion.state_dict import import_state_dict
from padis_jax.conversion.torch_files import read_torch
from padis_jax.devices.mesh import check_devices
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import json_text
from padis_jax.outputs import claimed, refuse_inputs
from padis_jax.patches import Frame, frame_for
from padis_jax.runs.training import provenance
from padis_jax.serialization import from_json
from padis_jax.training import init_state, state_shapes
from padis_jax.unet import NetworkConfig, Params, parameter_count
from padis_jax.weights import Slab, Weights, file_hash, load_weights, save_weights
from padis_jax.window import Window


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is converted, and what the file does not say.

    Attributes:
      source: a .pkl, .pt or .safetensors file, or the work folder of a training run.
      target: a .safetensors file; from .safetensors, the work folder that receives a checkpoint.
      image_shape: height and width of the training images (the paper's CT: 256 256).
      patch: side of the largest patch (the paper's CT: 56).
      low: value that becomes 0 (the paper's CT: 0).
      high: value that becomes 1 (the paper's CT: 1).
      unit: unit of `low` and `high`, such as HU; "1" for plain numbers.
      sigma_data: data deviation of the preconditioning; unset, that of the file, or 0.5.
      key: which network of a file with several, such as ema.
      data: what the network was trained on, and its licence; copied into the weights.
      dtype: type of the stored arrays, float32 or float16.
      overwrite: replace the target if it exists.
    """

    source: tyro.conf.Positional[str] = ""
    target: tyro.conf.Positional[str] = ""
    image_shape: tuple[int, int] | None = None
    patch: int = 0
    low: float | None = None
    high: float | None = None
    unit: str = "1"
    sigma_data: float | None = None
    key: str = ""
    data: str = ""
    dtype: Literal["float32", "float16"] = "float32"
    overwrite: bool = False


HELP = Page(
    "convert",
    __doc__ or "",
    Conversion,
    "SOURCE TARGET image_shape=H,W patch=N low=X high=X unit=UNIT sigma_data=X key=NAME data=TEXT dtype=TYPE overwrite",
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of padis-convert."""
    output, rest = split_output_options(sys.argv[1:] if argv is None else argv, HELP)
    given = parse(Conversion, rest, default=Conversion(), prog=called_as("convert"), description=HELP.full())
    if not given.source or not given.target:
        raise UserError(f"name a source and a target: {called_as('convert')} authors.pkl prior.safetensors ...")
    check_devices()
    source, target = Path(given.source), Path(given.target)
    if not (source.is_file() or source.is_dir()):  # a pipe would be waited for
        raise UserError(f"{source}: no such file or folder")
    if target.exists() and not given.overwrite and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} already exists: choose another name, or pass --overwrite")
    if source.is_file() and source.suffix == ".safetensors":
        _leave_out(given, "a checkpoint holds what the weights hold")
        weights = load_weights(source, volumes=True)
        about = _to_checkpoint(weights, source, target, write=not output.dry_run, lock=not output.no_lock)
    else:
        if target.suffix != ".safetensors":
            raise UserError(f"{target}: weights are written as .safetensors; give the target that suffix")
        refuse_inputs([target], [str(checkpoint.folder(source)) if source.is_dir() else given.source])
        read = _from_checkpoint if source.is_dir() else _from_torch
        about = _to_weights(given, read(source, given), target, write=not output.dry_run)
    about = {"source": str(source), "target": str(target), "written": not output.dry_run} | about
    if output.json:
        print(json_text(about))
    elif not output.quiet:
        for name, value in about.items():
            print(f"{name.replace('_', ' ')}: {from_json(Window, value) if name == 'window' else value}")


@dataclasses.dataclass(frozen=True)
class _Found:
    params: Params
    network: NetworkConfig
    frame: Frame
    window: Window
    provenance: dict[str, Any]
    slab: Slab | None = None


def _from_torch(source: Path, given: Conversion) -> _Found:
    if given.image_shape is None or given.patch < 1 or given.low is None or given.high is None:
        raise UserError(
            f"{source}: the file does not say the image size, the patch and the window: add them, for the "
            "paper's CT prior --image-shape 256 256 --patch 56 --low 0 --high 1"
        )
    found = read_torch(source, key=given.key)
    told = {"argument": given.sigma_data, "file": found.sigma_data, "default": 0.5}
    told_by, sigma_data = next((name, value) for name, value in told.items() if value is not None)
    try:
        network, params = import_state_dict(found.arrays, sigma_data=sigma_data)
        network.check_patch(given.patch)
        frame = frame_for(given.image_shape, given.patch)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    about = {
        "converted_from": source.name,
        "converted_from_sha256": file_hash(source),
        "network_in_file": found.holds,
        "sigma_data_from": told_by,
    }
    return _Found(params, network, frame, Window(given.unit, given.low, given.high), about)


def _from_checkpoint(source: Path, given: Conversion) -> _Found:
    if not checkpoint.folder(source).is_dir():
        raise UserError(f"{source}: not the folder of a training run: it has no checkpoints/")
    _leave_out(given, "frame, window and network are those of the checkpoint", but=("data", "dtype"))
    with checkpoint.open_checkpoints(source, reading=True) as manager:
        saved = checkpoint.saved_config(manager)
        if saved is None:
            raise UserError(f"{source}: it has no checkpoint yet")
        config = from_json(Config, saved.get("config"), f"{source}: the checkpoint's config")
        frame, slab = _frame_of(source, saved, config.network)
        window = from_json(Window, saved.get("window"), f"{source}: the checkpoint's window")
        state = checkpoint.restore(manager, state_shapes(config.network, config.optimiser), aside=False)
    assert state is not None  # it has a config
    about = {"converted_from": source.name} | provenance(config, state, saved.get("start_weights"))
    return _Found(jax.device_get(state.ema), config.network, frame, window, about, slab)


def _frame_of(source: Path, saved: Mapping[str, Any], network: NetworkConfig) -> tuple[Frame, Slab | None]:
    """The frame that a checkpoint names, and of a training on slabs what it is along z."""
    fields, where = saved.get("frame"), f"{source}: the checkpoint's frame"
    if not isinstance(fields, Mapping) or "slab" not in fields:
        return from_json(Frame, fields, where), None
    plane = {name: value for name, value in fields.items() if name not in ("slab", "skips")}
    about = saved.get("slab")
    if about is None:  # of a version that kept less of it
        if network.position_channels == 3:
            raise UserError(
                f"{source}: its checkpoints do not tell how many slices the volumes have, which the network's z needs; "
                "resume with train.py, which writes the weights"
            )
        about = {"slices": fields["slab"], "skips": fields.get("skips", [1])}
    return from_json(Frame, plane, where), from_json(Slab, about, f"{source}: the checkpoint's slab")


def _leave_out(given: Conversion, why: str, but: tuple[str, ...] = ()) -> None:
    """Refuses options that would change nothing, except those in `but`."""
    for field in dataclasses.fields(Conversion):
        if field.name not in (*but, "source", "target", "overwrite") and getattr(given, field.name) != field.default:
            raise UserError(f"{given.source}: {why}; leave --{field.name.replace('_', '-')} out")


def _to_weights(given: Conversion, found: _Found, target: Path, *, write: bool) -> dict[str, Any]:
    software = f"padis_jax {padis_jax.__version__}, jax {jax.__version__}"
    provenance = {"data": "not stated by the file"} | found.provenance | {"software": software}
    if given.data:
        provenance["data"] = given.data
    if write:
        try:
            about = (target, found.params, found.network, found.frame, found.window, provenance)
            save_weights(*about, dtype=given.dtype, slab=found.slab)
        except ValueError as error:
            raise UserError(f"{given.source}: {error}") from error
    size = 2 if given.dtype == "float16" else 4
    return {
        "parameters": parameter_count(found.params),
        "bytes": size * parameter_count(found.params),
        "network": dataclasses.asdict(found.network),
        "frame": dataclasses.asdict(found.frame),
        "window": dataclasses.asdict(found.window),
        "provenance": provenance,
        "sha256": file_hash(target) if write else None,
    }


def _to_checkpoint(weights: Weights, source: Path, target: Path, *, write: bool, lock: bool) -> dict[str, Any]:
    """A checkpoint at step 0: the parameters are the file's, the optimiser's moments are zero."""
    if target.suffix:
        raise UserError(f"{target}: a .safetensors file becomes a work folder for train.py; name a folder")
    saved = weights.provenance.get("config")
    config = from_json(Config, saved, f"{source}: provenance") if saved else Config()
    slab, patches = weights.slab, config.patches
    try:
        if slab is not None:
            patches = dataclasses.replace(patches, depth=slab.slices, skips=slab.skips)
        config = dataclasses.replace(config, network=weights.network, patches=patches)
    except ValueError as error:
        raise UserError(f"{source}: the settings in its provenance do not suit its network: {error}") from error
    about = {
        "config": dataclasses.asdict(config),
        "frame": dataclasses.asdict(weights.frame) | ({"slab": slab.slices, "skips": slab.skips} if slab else {}),
        "window": dataclasses.asdict(weights.window),
        # As of --run.start-weights: what is trained from here says of what.
        "start_weights": {"sha256": weights.digest, "provenance": dict(weights.provenance)},
        "converted_from": source.name,
        "converted_from_sha256": weights.digest,
    } | ({"slab": dataclasses.asdict(slab)} if slab else {})
    if write:
        with (
            claimed(target, ["checkpoints/"], [str(source)], of="training", lock=lock),
            checkpoint.open_checkpoints(target) as manager,
        ):
            if manager.latest_step() is not None:
                raise UserError(f"{target}: it has checkpoints already; choose another folder")
            checkpoint.save(manager, init_state(weights.params, config.optimiser), about)
    return {
        "parameters": parameter_count(weights.params),
        "step": 0,
        "frame": about["frame"],
        "window": about["window"],
    }


if __name__ == "__main__":
    main()
