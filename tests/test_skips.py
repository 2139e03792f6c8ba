"""Slabs of slices that are apart: tilings that cover, levels that take turns, batches without what is held out."""

import collections
import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import NETWORK, random_params

from padis_jax.batches import PatchConfig, pad_images
from padis_jax.errors import UserError
from padis_jax.images import PLAIN
from padis_jax.operators.linear import LinearOperator
from padis_jax.patches import frame_for
from padis_jax.slab_batches import Run, crop_slabs, draw_slabs, runs_of, slab_places
from padis_jax.slabs import VolumeFrame, random_offsets, slab_heights, tile_volume, untile_volume
from padis_jax.solvers import dds, sampling
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.volumes import build_volume_problem
from padis_jax.volume_prior import SlabTilings, VolumePrior, slab_positions
from padis_jax.volume_weights import load_volume_prior
from padis_jax.weights import Slab, load_weights, save_weights

PLANE = frame_for((6, 8), 4)  # 2 x 3 tiles, margins (2, 4)
SHAPES = [(1, 3, 3), (7, 3, 3), (5, 2, 4), (8, 3, 2)]  # slices D, d, s


def numbered(frame):
    """A padded volume whose voxels are the numbers of their slices, from 1; 0 beyond the ends."""
    depth, height, width = frame.image_shape
    slices = jnp.broadcast_to(jnp.arange(1.0, depth + 1)[:, None, None], (depth, height, width))
    return frame.pad(slices)


@pytest.mark.parametrize(("depth", "slab", "skip"), SHAPES)
def test_both_tilings_cover_every_voxel_once(depth, slab, skip):
    """From every offset; and slices s apart are in one slab in (d - 1)/d of the offsets."""
    frame = VolumeFrame(PLANE, depth, slab, skip=skip)
    inside = frame.pad(jnp.ones(frame.image_shape))
    for s in (1, skip):
        least, together = frame.margin[0] + 1 - slab * s, collections.Counter()
        for z in range(least, least + slab * s):
            offset = jnp.asarray([z, 1, 3])
            patches = tile_volume(frame, inside, offset, skip=s)
            assert patches.shape == (np.prod(frame.tiles_of(s)), 4, 4, slab)
            np.testing.assert_array_equal(untile_volume(frame, patches, offset, s), inside)
            columns = np.asarray(tile_volume(frame, numbered(frame), offset, skip=s))[..., :].max((1, 2))
            found = np.unique(columns, axis=0)
            held = found[found > 0]
            assert sorted(held) == list(range(1, depth + 1))  # the six slabs of a block in the plane are alike
            for column in found:
                number = np.flatnonzero(column)
                assert number.size == 0 or np.all(np.diff(column[number]) == s * np.diff(number))
                together.update(int(k) for k, after in zip(column, column[1:], strict=False) if k and after)
        assert together == {k: s * (slab - 1) for k in range(1, depth - s + 1)}


@pytest.mark.parametrize("skip", [1, 3])
def test_some_slabs_are_those_of_all(skip):
    frame, rng = VolumeFrame(PLANE, 7, 3, skip=3), np.random.default_rng(0)
    volume = jnp.asarray(rng.standard_normal(frame.padded_shape), jnp.float32)
    offset = random_offsets(jax.random.key(3), frame, skip)
    patches = tile_volume(frame, volume, offset, skip=skip)
    numbers = jnp.asarray([len(patches) - 1, 13, 7, 6, 0])
    np.testing.assert_array_equal(tile_volume(frame, volume, offset, numbers, skip), patches[numbers])
    other = jnp.asarray(rng.standard_normal(patches.shape), jnp.float32)
    one, two = jnp.vdot(patches, other), jnp.vdot(volume, untile_volume(frame, other, offset, skip))
    np.testing.assert_allclose(one, two, rtol=1e-4)


def mixing(matrix, patches, positions, sigma):
    """A linear denoiser of slabs: their slices, mixed."""
    return patches @ matrix


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_the_prior_against_loops(depth, apart):
    """Slice by slice in NumPy, for every offset along z; what lies beyond the ends is 0."""
    frame, step = VolumeFrame(PLANE, depth, 3, skip=3), 3 if apart else 1
    matrix = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    prior = VolumePrior(SlabTilings(Partial(mixing, jnp.asarray(matrix)), frame, 5, 3), frame)
    volume = jax.random.normal(jax.random.key(0), frame.padded_shape)
    denoise, seen = jax.jit(prior.denoise), set()
    for seed in range(40):
        z, y, x = (int(v) for v in random_offsets(jax.random.key(seed), frame, step))
        if z in seen:
            continue
        seen.add(z)
        expected = np.zeros(frame.padded_shape, np.float32)
        rows, columns = slice(y, y + 8), slice(x, x + 12)
        for begin in range(z, z + int(np.prod(frame.tiles_of(step)[:1])) * 3, 3 * step):
            for first in range(begin, begin + step):
                of_slab = [first, first + step, first + 2 * step]
                slab = np.asarray(volume)[of_slab, rows, columns]
                expected[of_slab, rows, columns] = np.einsum("dhw,de->ehw", slab, matrix)
        expected[: frame.margin[0]] = expected[frame.margin[0] + depth :] = 0
        found = denoise(jax.random.key(seed), volume, jnp.float32(0.1), jnp.bool_(apart))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert seen == set(range(9 - 3 * step, 9))


def taking_turns(key, volume, sigma, apart=False):
    """A denoiser that tells the two tilings apart."""
    return jnp.where(apart, 0.5, 0.25) * volume


def test_levels_take_turns_and_the_lowest_has_neighbours():
    """`reconstruct` against a loop over its steps with a denoiser of each kind."""
    frame = VolumeFrame(PLANE, 4, 3, skip=3)
    operator = LinearOperator(
        lambda v: v.sum((1, 2)), lambda r: jnp.ones(frame.image_shape) * r[:, None, None], frame.image_shape, (4,),
        jnp.float32(np.sqrt(48)),
    )  # fmt: skip
    y, settings = jnp.arange(1.0, 5.0), dds.DDS(eta=0.5)
    found = reconstruct(2, y, operator, VolumePrior(taking_turns, frame), solver=settings, levels=4, inner=2)
    noises = sampling.noises(np.geomspace(2.0, 0.003, 4), 2)
    assert noises.left.tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
    start_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))
    x = noises.sigma[0] * jax.random.normal(start_key, frame.padded_shape)

    @jax.jit
    def step(share, key, x, noise):
        prior = VolumePrior(lambda key, volume, sigma: share * volume, frame)
        return dds.step(settings, build_volume_problem(operator, prior, y, None, "dds"), key, x, noise)[0]

    for i, key in enumerate(jax.random.split(run_key, 8)):
        share = 0.5 if i in (0, 1, 4, 5) else 0.25
        x = step(jnp.float32(share), key, x, jax.tree.map(lambda a, i=i: a[i], noises))
    np.testing.assert_allclose(found.image, frame.crop(x), rtol=2e-4, atol=2e-4)


def test_a_skip_of_1_draws_what_was_drawn_before():
    """Digests of batches of the version without skips; one skip alone draws nothing either."""
    slices = np.arange(9 * 48, dtype=np.float32).reshape(9, 6, 8, 1)
    config = PatchConfig(sizes=(2, 4), probabilities=(0.5, 0.5), batch=(30, 20), flips=True, depth=3)
    runs, digest = runs_of((0, 1, 2, 3, 10, 11, 13, 14, 15), (20,)), hashlib.sha256()
    for step in range(5):
        for array in draw_slabs(pad_images(slices, PLANE), runs, config, 7, step, seen=3):
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "eb90ed23a54a6c5f"
    offsets = jax.vmap(lambda key: random_offsets(key, VolumeFrame(PLANE, 5, 3)))(
        jax.random.split(jax.random.key(0), 9)
    )
    assert np.asarray(offsets).ravel().tolist() == [
        2,
        1,
        3,
        1,
        1,
        3,
        0,
        1,
        0,
        0,
        1,
        1,
        1,
        0,
        3,
        2,
        0,
        3,
        2,
        1,
        0,
        1,
        1,
        2,
        2,
        1,
        0,
    ]


RUNS = runs_of((0, 1, 2, 3, 5, 6, 7, 8, 12, 13, 20, 21, 23), (14, 10))  # of two volumes


def test_runs_know_their_volume():
    assert [(run.first, run.volume) for run in RUNS] == [(0, 0), (5, 0), (12, 0), (6, 1), (9, 1)]


def test_no_place_of_a_slab_is_a_slice_that_is_held_out():
    """Within a run as if it were the volume; across held-out slices only where all of a slab are trained on."""
    chosen = [(0, k) for k in (0, 1, 2, 3, 5, 6, 7, 8, 12, 13)] + [(1, k) for k in (6, 7, 9)]
    places, across = slab_places(RUNS, 3, 3), set()
    for run, begin, held in places:
        numbers = [run.first + begin + 3 * k for k in range(3)]
        assert any(index >= 0 for index in held)
        for index, number in zip(held, numbers, strict=True):
            assert index < 0 or chosen[index] == (run.volume, number)
        within = [run.first <= number < run.first + run.count for number in numbers]
        if [index >= 0 for index in held] != within:
            assert min(held) >= 0
            across.add((run.volume, *numbers))
    assert across == {(0, 0, 3, 6), (0, 2, 5, 8)}  # not 1, 4, 7, whose middle is held out; 6, 9, 12 likewise
    within = [[b for b in range(-6, r.count) if any(0 <= b + k < r.count for k in (0, 3, 6))] for r in RUNS]
    assert len(places) == sum(map(len, within)) + 2 and len(within[2]) == 6  # of two slices
    runs = (Run(0, 4, 0, 9), Run(4, 2, 6, 9))
    assert [(run, begin) for run, begin, _ in slab_places(runs, 3)] == [
        (run, begin) for run in runs for begin in range(-2, run.count)
    ]


def test_batches_have_one_distance_and_both_come():
    slices = np.arange(1, 14, dtype=np.float32).reshape(13, 1, 1, 1) * np.ones((1, 6, 8, 1), np.float32)
    config = PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(40,), depth=3, skips=(1, 3))
    chosen, seen = np.asarray([0, 1, 2, 3, 5, 6, 7, 8, 12, 13, 20, 21, 23]), collections.Counter()
    for step in range(30):
        batch = draw_slabs(pad_images(slices, PLANE), RUNS, config, 0, step)
        held = batch.patches.max((1, 2))
        np.testing.assert_array_equal(batch.kept, held > 0)
        apart = set()
        for slab, kept in zip(held.astype(int), batch.kept, strict=True):
            places = np.flatnonzero(kept)
            apart |= set((np.diff(chosen[slab[places] - 1]) / np.diff(places)).tolist())
        assert apart in ({1.0}, {3.0})
        seen.update(apart)
    assert 8 < seen[1.0] < 22 and seen[1.0] + seen[3.0] == 30


def test_positions_are_those_of_sampling():
    """z of a slab of slices that are apart: that of its middle on the one scale, in training and when it is tiled."""
    np.testing.assert_allclose(
        slab_heights(3, 7, 3)[8], slab_heights(3, 7)[2 + 2], rtol=1e-6
    )  # slices 0, 3, 6; 2, 3, 4
    frame = VolumeFrame(PLANE, 7, 3, skip=3)
    padded = pad_images(np.ones((7, 6, 8, 1), np.float32), PLANE)
    batch = crop_slabs(np.random.default_rng(0), padded, runs_of(range(7), (7,)), 4, 300, depth=3, skip=3, seen=3)
    drawn, numbers = {float(z) for z in batch.positions[:, 0, 0, 2]}, jnp.arange(np.prod(frame.tiles_of(3)))
    assert len(drawn) == 13  # of slabs that begin at slices -6 to 6
    tiled = set()

    @jax.jit
    def tiled_at(offset):
        ones = frame.pad(jnp.ones(frame.image_shape))
        return tile_volume(frame, ones, offset, numbers, 3), slab_positions(frame, offset, numbers, 3, 3)

    for z in range(9):
        slabs, where = (np.asarray(a) for a in tiled_at(jnp.asarray([z, 1, 3])))
        tiled |= {float(p[0, 0, 2]) for p, slab in zip(where, slabs, strict=True) if slab.any()}
    assert tiled == drawn
    part = VolumeFrame(PLANE, 3, 3, first=2, total=7, skip=3)
    for skip, begin in ((3, 8), (1, 8)):  # the slab that begins at slice 0 of the part, which is slice 2 of the whole
        there = slab_positions(part, jnp.asarray([begin, 0, 0]), jnp.arange(1), 3, skip)
        whole = slab_positions(frame, jnp.asarray([begin + 2, 0, 0]), jnp.arange(1), 3, skip)
        np.testing.assert_array_equal(there, whole)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of slabs, of neighbours alone and of both distances."""
    network = dataclasses.replace(NETWORK, image_channels=3, position_channels=3, dropout=0.0)
    folder, params = tmp_path_factory.mktemp("slabs"), random_params(network)
    for name, skips in (("one", (1,)), ("both", (1, 3))):
        about = (network, frame_for((8, 8), 8), PLAIN, {})
        save_weights(folder / f"{name}.safetensors", params, *about, slab=Slab(3, 5, skips))
    return folder


def test_weights_know_the_distances_that_they_were_trained_on(files):
    assert load_weights(files / "both.safetensors", volumes=True).slab == Slab(3, 5, (1, 3))
    prior = load_volume_prior(files / "both.safetensors", depth=5, skip=3)
    assert prior.frame.skip == 3 and prior.frame.padded_shape[0] == 2 * 9 + 8
    with pytest.raises(UserError, match=r"trained on slabs of slices 1 apart: .*patches.skips 1 3"):
        load_volume_prior(files / "one.safetensors", depth=5, skip=3)
    with pytest.raises(UserError, match=r"slices 1 and 3 apart: .*patches.skips 1 2"):
        load_volume_prior(files / "both.safetensors", depth=5, skip=2)
    assert load_volume_prior(files / "both.safetensors", depth=5).frame == VolumeFrame(frame_for((8, 8), 8), 5, 3, 0, 5)


@pytest.mark.slow
def test_a_network_of_slabs_runs_on_both(files):
    """Under a trace of the level, a few patches at a time."""
    prior = load_volume_prior(files / "both.safetensors", depth=5, skip=3, patch_batch=5)
    volume, denoise = jax.random.normal(jax.random.key(3), prior.frame.padded_shape), jax.jit(prior.denoise)
    plain, apart = (denoise(jax.random.key(5), volume, jnp.float32(0.5), jnp.bool_(flag)) for flag in (False, True))
    assert np.all(np.isfinite(plain)) and np.abs(np.asarray(plain - apart)).max() > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VolumeFrame(PLANE, 4, 1, skip=3), "skip is 3, and a slab of one slice has no slices apart"),
        (lambda: VolumeFrame(PLANE, 4, 3, skip=0), "skip is 0"),
        (lambda: VolumeFrame(PLANE, 4, 3, skip=65), "64 apart"),
        (lambda: PatchConfig(depth=3, skips=(1, 1)), r"patches.skips is \(1, 1\)"),
        (lambda: PatchConfig(depth=3, skips=()), r"patches.skips is \(\)"),
        (lambda: PatchConfig(depth=3, skips=(0,)), r"patches.skips is \(0,\)"),
        (lambda: PatchConfig(depth=3, skips=(3,)), r"patches.skips is \(3,\): 1 must be among them"),
        (lambda: Slab(3, 0, (3,)), r"slabs of slices that are \(3,\) apart: use 1"),
        (lambda: PatchConfig(skips=(1, 3)), "patches of one slice have none: set patches.depth"),
        (lambda: Slab(3, 5, (0,)), "use 1, and up to 64"),
    ],
)
def test_distances_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()
