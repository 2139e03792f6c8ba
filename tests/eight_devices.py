"""What eight virtual CPU devices compute; run in a process of its own by test_parallel.py, prints JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/eight_devices.py training 1 2 4 8
"""

import dataclasses
import json
import re
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from tiny import CONFIG, random_like

from padis_jax.batches import Batch, PatchConfig
from padis_jax.checkpoint import digests
from padis_jax.devices import parallel
from padis_jax.devices.mesh import make_mesh, put
from padis_jax.loss import DenoisingLoss
from padis_jax.operators.linear import from_functions
from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.training import state_shapes
from padis_jax.volume_prior import SharedSlabTilings, SlabTilings, VolumePrior

COLLECTIVES = r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
TRAINING = dataclasses.replace(CONFIG, patches=PatchConfig(sizes=(4,), probabilities=(1.0,), batch=(8,)))
FRAME = frame_for((13, 18), 4)  # 5 x 6 patches: 30, which eight devices do not divide


def collectives(compiled):
    """How often each kind stands in a compiled program."""
    return dict(Counter(re.findall(COLLECTIVES, compiled.as_text())))


def distance(a, b):
    """Largest difference relative to the largest value."""
    pairs = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.max(np.abs(x - y)) / (np.max(np.abs(x)) + 1e-12)) for x, y in pairs)


def train(config, count):
    """Two steps on `count` devices: the state, and the collectives of a step."""
    mesh = make_mesh(count)
    shapes = state_shapes(config.network, config.optimiser)
    state = random_like(shapes, seed=1)._replace(step=jnp.asarray(0), seen=jnp.asarray(0.0))
    state = state._replace(optimiser=jax.tree.map(jnp.zeros_like, state.optimiser))
    sharding = parallel.state_sharding(shapes, mesh, shard_parameters=config.run.shard_parameters)
    state, key = put(state, sharding), jax.random.key(0)
    settings = (DenoisingLoss(config.network, config.noise), config.optimiser, config.run.steps)
    rng = np.random.default_rng(0)
    batch = Batch(rng.random((8, 4, 4, 1), np.float32), rng.uniform(-1, 1, (8, 4, 4, 2)).astype(np.float32))
    step = None
    for _ in range(2):
        arguments = (key, state, *parallel.put_batch(mesh, batch))
        step = step or parallel.step_on_mesh(mesh, sharding).lower(*settings, *arguments).compile()
        state, metrics = step(*arguments)
    return state, collectives(step), float(metrics.loss)


def training(counts):
    """Data-parallel on several numbers of devices, and parameters split over all."""
    found, reference = {}, None
    for count in counts:
        state, kinds, loss = train(TRAINING, count)
        reference = state if reference is None else reference
        found[str(count)] = {"distance": distance(reference, state), "collectives": kinds, "loss": loss}
    parallel.SMALLEST_SPLIT = 64
    split = dataclasses.replace(TRAINING, run=dataclasses.replace(TRAINING.run, shard_parameters=True))
    state, kinds, loss = train(split, counts[-1])
    largest = max(jax.tree.leaves(state.params), key=lambda a: a.size)
    found["split"] = {
        "distance": distance(reference, state),
        "collectives": kinds,
        "share": largest.addressable_shards[0].data.size / largest.size,
        "digest": digests({"a": largest}) == digests({"a": np.asarray(largest)}),
    }
    return found


@jax.tree_util.Partial
def denoise(patches, positions, sigma):
    """A cheap nonlinear denoiser of patches."""
    return jnp.tanh(patches + 0.3 * positions[..., :1] + jnp.roll(patches, 1, axis=1)) * 0.4


def blur(image):
    """A linear map of images."""
    return image + 0.5 * jnp.roll(image, 1, axis=0)


def sampling(counts):
    """The patches of one image on several numbers of devices."""
    operator = from_functions(blur, image_shape=(13, 18, 1))
    y = np.random.default_rng(0).random((13, 18, 1), np.float32)
    found = {}
    cases = {
        "dds": (DDS(cg_steps=2), {}),
        "dps": (DPS(), {}),
        "dps_ring": (DPS(step_form="paper", zeta=0.1, zero_ring=True), {}),
        "dps_tilings": (DPS(), {"tilings": 3}),
        "dps_mirror": (DPS(), {"mirror": True}),
        "dds_mirror": (DDS(cg_steps=2), {"mirror": True}),
        "dps_weighted": (DPS(), {}),
    }
    noise = np.random.default_rng(1).uniform(0.1, 1, y.shape).astype(np.float32)
    for case, (settings, more) in cases.items():
        name = case.partition("_")[0]

        told = {"noise_std": noise} if case == "dps_weighted" else {}

        def solve(prior, key, name=name, settings=settings, told=told):
            return reconstruct(key, y, operator, prior, solver=settings or name, levels=3, sigma_max=1.0, **told).image

        reference = jax.jit(solve)(tiled_prior(denoise, FRAME, patch_batch=3, **more), jax.random.key(0))
        for count in counts:
            prior = tiled_prior(denoise, FRAME, patch_batch=3, mesh=make_mesh(count), **more)
            compiled = jax.jit(solve).lower(prior, jax.random.key(0)).compile()
            image = compiled(prior, jax.random.key(0))
            found[f"{case} {count}"] = {"distance": distance(reference, image), "collectives": collectives(compiled)}
    return found


def images(counts):
    """Several images side by side, five of them, on several numbers of devices and one by one."""
    operator, prior = from_functions(blur, image_shape=(13, 18, 1)), tiled_prior(denoise, FRAME)
    ys = np.random.default_rng(0).random((5, 13, 18, 1), np.float32)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(5))
    settings = [DDS(cg_steps=2, noise=0.01 * i) for i in range(5)]
    weighing = [DDS(cg_steps=2)] * 5, np.random.default_rng(1).uniform(0.1, 1, ys.shape).astype(np.float32)
    options = {"levels": 3, "sigma_max": 1.0}
    found = {}
    for name, solvers, noise in (("", settings, None), (" weighted", *weighing)):
        one_by_one = [
            reconstruct(
                keys[i],
                ys[i],
                operator,
                prior,
                solver=solvers[i],
                start=ys[i],
                noise_std=None if noise is None else noise[i],
                **options,
            ).image
            for i in range(5)
        ]
        for count in counts:
            batch = reconstruct_batch(
                keys,
                ys,
                operator,
                prior,
                settings=solvers,
                starts=ys,
                noise_std=noise,
                mesh=make_mesh(count),
                **options,
            )
            gap = distance(jnp.stack(one_by_one), batch.images)
            found[f"{count}{name}"] = {"distance": gap, "shape": list(batch.images.shape)}
    return found


@jax.tree_util.Partial
def denoise_slabs(patches, positions, sigma):
    """A cheap nonlinear denoiser of slabs, which mixes their slices."""
    return jnp.tanh(jnp.roll(patches, 1, axis=-1) + 0.3 * positions[..., 2:]) * 0.4 + 0.2 * patches


def volumes(counts):
    """The patches of one volume: 3 or, of slices that are apart, 6 slabs of 2 x 3 patches, 4 at a time."""
    operator = from_functions(blur, image_shape=(7, 6, 8))
    y, found = np.random.default_rng(0).random((7, 6, 8), np.float32), {}
    cases = {"dds": (DDS(cg_steps=2), 1), "dps": (DPS(), 1), "skip": (DDS(cg_steps=2), 3), "mirror": (DPS(), 1)}
    for case, (solver, skip) in cases.items():
        mirror = case == "mirror"
        frame = VolumeFrame(frame_for((6, 8), 4), 7, 3, skip=skip)

        def solve(prior, key, solver=solver):
            return reconstruct(key, y, operator, prior, solver=solver, levels=3, sigma_max=1.0).image

        one = VolumePrior(SlabTilings(denoise_slabs, frame, 4, 3, mirror=mirror), frame)
        reference = jax.jit(solve)(one, jax.random.key(0))
        for count in counts:
            shared = SharedSlabTilings(denoise_slabs, frame, 4, 3, make_mesh(count), mirror=mirror)
            prior = VolumePrior(shared, frame)
            compiled = jax.jit(solve).lower(prior, jax.random.key(0)).compile()
            image = compiled(prior, jax.random.key(0))
            found[f"{case} {count}"] = {"distance": distance(reference, image), "collectives": collectives(compiled)}
    return found


if __name__ == "__main__":
    chosen = {"training": training, "sampling": sampling, "images": images, "volumes": volumes}[sys.argv[1]]
    print(json.dumps(chosen([int(a) for a in sys.argv[2:]])))
