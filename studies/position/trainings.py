"""The trainings: which there are, in the order of what they answer, and each with checkpoints until it is finished.

Patches of one size only, as many in a batch as make about 25,000 pixels, so that a step costs about the same for every
size; a number of steps that takes as long with coordinates (`equal_budget.step_seconds`). Everything else is
configs/head_ct.py, but for the average of parameters, whose half-life is a tenth of the patches seen throughout: in
patches, as there, it would be a shorter time with small patches.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from padis_jax import checkpoint
from padis_jax.batches import PatchConfig, draw_batch
from padis_jax.config import Config, load_config_file
from padis_jax.digest import digests
from padis_jax.errors import UserError
from padis_jax.files import json_text, write_json
from padis_jax.lock import locked
from padis_jax.patches import Frame
from padis_jax.runs.training_data import load_data
from padis_jax.serialization import from_json
from padis_jax.training import init_state, train_step
from padis_jax.training_loop import Hook, every, fit
from padis_jax.unet import NetworkConfig, Params
from studies.equal_budget import step_seconds
from studies.position.encodings import Encoding, Loss, Way, init

CONFIG = "configs/head_ct.py"
BATCH = {16: 96, 32: 24, 56: 8, 96: 3}
BANDWIDTHS = (0.5, 2.0, 8.0)
SHORT = 4  # a bandwidth is chosen by trainings of the budget divided by this
SEED = 0
SAVES = 20  # checkpoints of a training


class Training(NamedTuple):
    """A way, the side of patches, slices to train on (0: all), steps, and of Fourier features the bandwidth."""

    way: Way
    patch: int
    slices: int
    steps: int
    bandwidth: float = 0.0

    @property
    def name(self) -> str:
        """WAY_P_SLICES_STEPS, of its folder."""
        way = f"{self.way}{self.bandwidth:g}" if self.bandwidth else self.way
        return f"{way}_{self.patch}_{self.slices}_{self.steps}"


class Trained(NamedTuple):
    """A finished training: what it was, its averaged parameters, network, frame, and what its file says."""

    training: Training
    params: Params
    network: NetworkConfig
    frame: Frame
    about: dict[str, Any]


def order() -> list[tuple[Way, int, int]]:
    """(way, patch, slices) of all trainings, those that answer most first."""
    with_and_without: tuple[Way, ...] = ("coordinates", "none")
    encoded: tuple[Way, ...] = ("dropped", "fourier", "table")
    return [
        *((way, patch, 0) for patch in (56, 16) for way in with_and_without),
        *((way, patch, 0) for way in encoded for patch in (56, 16)),
        *((way, patch, 10) for patch in (56, 16) for way in with_and_without),
        *((way, patch, 0) for patch in (96, 32) for way in with_and_without),
    ]


def budget(out: Path, patch: int, minutes: float, steps: int | None) -> int:
    """Steps of a training with patches of that side: as given, or those that fit into the minutes, timed once."""
    if steps is not None:
        return steps
    path = out / f"steps_{minutes:g}.json"
    timed = json.loads(path.read_text()) if path.exists() else {}
    if str(patch) not in timed:
        seconds = step_seconds(config_of(Training("coordinates", patch, 0, 100)))
        timed[str(patch)] = {"seconds_per_step": seconds, "steps": max(1, round(60 * minutes / seconds))}
        write_json(path, timed)
        print(f"P = {patch}: {seconds:.3f} s a step, {timed[str(patch)]['steps']} in {minutes:g} minutes", flush=True)
    return int(timed[str(patch)]["steps"])


def config_of(training: Training) -> Config:
    """Its settings; the network's own position channels are not looked at."""
    base = load_config_file(CONFIG, Config)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, limit=training.slices),
        patches=PatchConfig((training.patch,), (1.0,), (BATCH[training.patch],), flips=base.patches.flips),
        optimiser=dataclasses.replace(
            base.optimiser,
            warmup_steps=min(base.optimiser.warmup_steps, training.steps // 10),
            ema_half_life=1e9,
            ema_ramp=0.1,
        ),
        run=dataclasses.replace(base.run, steps=training.steps, seed=SEED),
    )


def train(training: Training, folder: Path) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint if there is one; returns what trained.json of the folder says.

    Raises:
      UserError: if the loss stops being finite, or another run is at work in the folder.
    """
    if (done := finished(folder)) is not None:
        return done
    config = config_of(training)
    encoding = Encoding(training.way, training.bandwidth)
    data, loss = load_data(config), Loss(encoding, config.network, config.noise)
    about = {"training": training._asdict(), "config": config, "frame": data.frame}
    about = json.loads(json_text(about))
    key = jax.random.key(SEED)
    with locked(folder), checkpoint.open_checkpoints(folder, keep=1) as manager:
        fresh = init_state(init(jax.random.fold_in(key, 0), encoding, config.network), config.optimiser)
        state = checkpoint.restore(manager, jax.eval_shape(lambda: fresh)) or fresh
        saved = checkpoint.saved_config(manager)
        if saved is not None and {name: saved[name] for name in about} != about:
            raise UserError(f"{folder}: its checkpoints are of other settings; remove the folder to begin again")
        first, begin = int(state.step), time.perf_counter()
        take = functools.partial(train_step, loss, config.optimiser, training.steps)
        with tqdm(total=training.steps, initial=first, desc=training.name, unit="step", mininterval=5.0) as bar:

            def draw(number: int) -> Any:
                bar.update()
                return draw_batch(data.padded, config.patches, SEED, number)

            save = Hook(every(max(1, training.steps // SAVES)), lambda s, _: checkpoint.save(manager, s, about))
            state = fit(jax.random.fold_in(key, 1), state, draw, take, training.steps, [save])
        seconds = time.perf_counter() - begin
        row = about | {
            "weights": digest(state.ema),
            "seconds": seconds,
            "seconds_per_step": seconds / max(1, training.steps - first),
            "validation_loss": validation_loss(loss, state.ema, data.validation),
        }
    write_json(folder / "trained.json", row)
    return row


def finished(folder: Path) -> dict[str, Any] | None:
    """What trained.json says, or None where a training is not finished."""
    path = folder / "trained.json"
    return json.loads(path.read_text()) if path.exists() else None


def validation_loss(loss: Loss, params: Params, batch: Any) -> float:
    """On patches of the validation slices with fixed noise, positions given, dropout off."""
    still = jax.jit(dataclasses.replace(loss, train=False))
    return float(still(params, jax.random.key(0), *batch))


def digest(params: Params) -> str:
    """Eight hexadecimal digits of the parameters."""
    total = sum((index + 1) * value for index, (*_, value) in enumerate(digests(params).values()))
    return f"{total % 2**32:08x}"


def load(folder: Path) -> Trained:
    """A finished training.

    Raises:
      UserError: where it is not finished, or its checkpoint is gone.
    """
    about = finished(folder)
    if about is None:
        raise UserError(f"{folder}: no finished training; run `python -m studies.position train` first")
    training = Training(**about["training"])
    config = config_of(training)
    encoding = Encoding(training.way, training.bandwidth)
    shapes = jax.eval_shape(lambda: init_state(init(jax.random.key(0), encoding, config.network), config.optimiser))
    with checkpoint.open_checkpoints(folder, keep=1, reading=True) as manager:
        state = checkpoint.restore(manager, shapes, aside=False)
    if state is None or digest(state.ema) != about["weights"]:
        raise UserError(f"{folder}: its checkpoint is not that of trained.json; remove the folder and train again")
    frame = from_json(Frame, about["frame"], f"{folder}/trained.json: frame")
    return Trained(training, state.ema, config.network, frame, about)


def bandwidth(patch: int, slices: int, steps: int, runs: Path) -> float:
    """The bandwidth of the lowest validation loss after a short training of each."""
    losses = {}
    for each in BANDWIDTHS:
        short = Training("fourier", patch, slices, max(1, steps // SHORT), each)
        losses[each] = train(short, runs / "bandwidth" / short.name)["validation_loss"]
    print(", ".join(f"bandwidth {each:g}: validation loss {loss:.4f}" for each, loss in losses.items()), flush=True)
    return min(losses, key=lambda each: losses[each])
