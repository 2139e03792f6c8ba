"""Blur, reduction, masks, identity: transposes, norms, pseudo-inverses, and other implementations of the same."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from padis_jax.operators import (
    Blur,
    Downsample,
    Identity,
    Inpaint,
    box_mask,
    dot_test,
    free_form_mask,
    gaussian_kernel,
    motion_kernel,
    random_mask,
    stroke_mask,
    uniform_kernel,
)
from padis_jax.problems.registry import PROBLEMS

H, W = 12, 16
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W))
LOPSIDED = RNG.random((4, 7)) - 0.3  # its centre (2, 3) is off every symmetry
MASK = RNG.random((H, W)) < 0.4
SHAPE = dict(image_shape=(H, W))
FACTORIES = {
    "blur, circular": lambda: Blur(**SHAPE, kernel=LOPSIDED),
    "blur, reflect": lambda: Blur(**SHAPE, kernel=LOPSIDED, boundary="reflect"),
    "blur, zero": lambda: Blur(**SHAPE, kernel=uniform_kernel(3), boundary="zero"),
    "block": lambda: Downsample(**SHAPE, factor=4),
    "bicubic": lambda: Downsample(**SHAPE, factor=2, method="bicubic"),
    "block, sides with a rest": lambda: Downsample(**SHAPE, factor=5),
    "bicubic, sides with a rest": lambda: Downsample(**SHAPE, factor=5, method="bicubic"),
    "inpainting": lambda: Inpaint(mask=MASK),
    "denoising": lambda: Identity(**SHAPE),
}


@functools.cache
def make(name):
    return FACTORIES[name]()


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-30)


@pytest.mark.parametrize("name", FACTORIES)
def test_the_transpose_is_exact_for_one_channel_and_three(name):
    operator = make(name)
    assert dot_test(operator, (H, W), key=jax.random.key(0)) < 1e-5
    with jax.enable_x64(True):
        assert dot_test(operator, (H, W, 3), key=jax.random.key(0), dtype=jnp.float64) < 1e-12


@pytest.mark.parametrize("name", FACTORIES)
def test_norm_and_pseudo_inverse_are_those_of_the_matrix(name):
    operator = make(name)
    with jax.enable_x64(True):
        basis = jnp.eye(H * W).reshape(H, W, H * W)
        matrix = np.asarray(operator(basis)).reshape(-1, H * W)  # an image of many channels
        np.testing.assert_allclose(operator.norm, np.linalg.norm(matrix, 2), rtol=1e-3)
        y = operator(jnp.asarray(IMAGE))
        x = operator.pinv(y)
        assert relative(operator(x), np.asarray(y)) < 1e-5  # A A+ A = A
        if "blur" not in name or "circular" in name:  # the others by conjugate gradients, slow to the last digit
            off_range = RNG.standard_normal(y.shape)
            expected = np.linalg.pinv(matrix, rcond=1e-5) @ off_range.ravel()
            assert relative(np.ravel(operator.pinv(jnp.asarray(off_range))), expected) < 1e-5


@pytest.mark.parametrize("name", FACTORIES)
def test_under_jit_vmap_and_grad_as_an_argument(name):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss_gradient(operator, images, y):
        return jax.vmap(jax.grad(lambda x: 0.5 * jnp.sum((operator(x) - y) ** 2)))(images)

    operator, images = make(name), jnp.asarray(RNG.random((2, H, W, 3)), jnp.float32)
    y = operator(images[0])
    chex.assert_shape(y, (*operator.measurement_shape, 3))
    gradient = loss_gradient(operator, images, y)
    np.testing.assert_allclose(gradient[1], operator.T(operator(images[1]) - y), atol=2e-5)
    loss_gradient(FACTORIES[name](), images, y)  # made again it is the same program
    chex.assert_shape([operator.start(y), operator.pinv(y)], (H, W, 3))


@pytest.mark.parametrize("name", FACTORIES)
def test_integers_and_half_precision_are_computed_in_single(name):
    operator, counts = make(name), np.arange(H * W).reshape(H, W) % 50  # exact in bfloat16
    y = operator(jnp.asarray(counts, jnp.float32))
    for dtype in (jnp.uint8, jnp.bfloat16):
        found = operator(jnp.asarray(counts, dtype))
        assert found.dtype == operator.T(jnp.ones(y.shape, dtype)).dtype == jnp.float32
        np.testing.assert_array_equal(found, y)


@pytest.mark.parametrize(("boundary", "theirs"), [("circular", "wrap"), ("reflect", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize("kernel", [uniform_kernel(3), LOPSIDED, motion_kernel(4.3, 0.7)], ids=["3x3", "any", "motion"])
def test_blur_is_scipys_convolution(kernel, boundary, theirs):
    odd = np.pad(kernel, [(0, 1 - n % 2) for n in kernel.shape])  # an even kernel's centre is at n // 2 here
    with jax.enable_x64(True):
        found = Blur(**SHAPE, kernel=kernel, boundary=boundary)(jnp.asarray(IMAGE))
    np.testing.assert_allclose(found, ndimage.convolve(IMAGE, odd, mode=theirs), atol=1e-12)


@pytest.mark.parametrize(("damped", "kept"), [(1e-4, True), (1e-8, False)])
@pytest.mark.parametrize("unit", [1.0, 1e-7])
def test_a_frequency_is_lost_below_a_share_of_the_strongest_whatever_the_unit(damped, kept, unit):
    """[1 + d, 1 - d] / 2 passes the mean as it is and multiplies columns of alternate sign by d."""
    with jax.enable_x64(True):
        blur = Blur(**SHAPE, kernel=unit / 2 * np.asarray([[1 + damped, 1 - damped]]))
        stripes = np.broadcast_to((-1.0) ** np.arange(W), (H, W))
        found = np.asarray(blur.pinv(blur(jnp.asarray(stripes + 3)))) - 3
    np.testing.assert_allclose(found, stripes if kept else 0 * stripes, atol=1e-6)


@pytest.mark.parametrize(("problem", "size"), [("deblur9", 9), ("deblur17", 17)])
def test_the_named_uniform_blurs_are_scipys(problem, size):
    image = RNG.random((20, 24))
    with jax.enable_x64(True):
        found = PROBLEMS[problem].build((20, 24), 1, jax.random.key(0))(jnp.asarray(image))
    np.testing.assert_allclose(found, ndimage.uniform_filter(image, size, mode="wrap"), atol=1e-12)


def test_gaussian_kernel_is_scipys():
    impulse = np.zeros((25, 25))
    impulse[12, 12] = 1
    np.testing.assert_allclose(gaussian_kernel(1.5, 25), ndimage.gaussian_filter(impulse, 1.5, truncate=9), atol=1e-7)
    assert gaussian_kernel(1.5).shape == (13, 13)


def test_motion_kernel_has_the_moments_of_a_line():
    for length, angle in ((9.0, 0.0), (7.5, 0.6), (5.0, 2.2)):
        kernel = motion_kernel(length, angle)
        half = kernel.shape[0] // 2
        y, x = half - np.mgrid[: 2 * half + 1, : 2 * half + 1][0], np.mgrid[: 2 * half + 1, : 2 * half + 1][1] - half
        np.testing.assert_allclose([kernel.sum(), (kernel * x).sum(), (kernel * y).sum()], [1, 0, 0], atol=1e-6)
        np.testing.assert_allclose((kernel * x * y).sum(), length**2 / 12 * np.cos(angle) * np.sin(angle), atol=0.02)
        # A bilinear share widens each axis by at most 1/4.
        spread = (kernel * x**2).sum() - length**2 / 12 * np.cos(angle) ** 2
        assert -0.01 < spread < 0.26
    np.testing.assert_array_equal(motion_kernel(0.0, 1.0), [[1.0]])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reductions_are_pillows(factor):
    image = RNG.random((16, 24))
    small = 24 // factor, 16 // factor
    for method, theirs in (("block", Image.Resampling.BOX), ("bicubic", Image.Resampling.BICUBIC)):
        found = Downsample(image_shape=(16, 24), factor=factor, method=method)(jnp.asarray(image))
        expected = np.asarray(Image.fromarray(image.astype(np.float32)).resize(small, theirs))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["block", "bicubic"])
def test_the_last_block_of_a_side_with_a_rest_is_of_the_pixels_that_are_there(method):
    image = jnp.asarray(RNG.random((9, 10, 3)), jnp.float32)
    small = Downsample(image_shape=(9, 10), factor=4, method=method)
    found = small(image)
    assert found.shape == (3, 3, 3) and small.start(found).shape == image.shape
    np.testing.assert_allclose(small(jnp.ones((9, 10))), 1, atol=1e-6)
    if method == "block":
        np.testing.assert_allclose(found[2, 2], image[8:, 8:].mean((0, 1)), atol=1e-6)
        np.testing.assert_allclose(found[0, 1], image[:4, 4:8].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(small.start(found)[8, 8], found[2, 2])
    np.testing.assert_allclose(small(small.pinv(found)), found, atol=1e-5)


def test_starts():
    small = Downsample(**SHAPE, factor=4)
    np.testing.assert_array_equal(small.start(jnp.arange(12.0).reshape(3, 4))[4:8, 8:12], np.full((4, 4), 6.0))
    holes = make("inpainting")
    filled = np.asarray(holes.start(holes(jnp.asarray(IMAGE))))
    known = np.argwhere(MASK)
    for pixel in np.argwhere(~MASK):
        distance = np.sum((known - pixel) ** 2, 1)
        nearest = known[distance == distance.min()]  # of several, any
        assert np.isclose(filled[tuple(pixel)], IMAGE[tuple(nearest.T)]).any()
    np.testing.assert_allclose(filled[MASK], IMAGE[MASK], rtol=1e-6)
    blurred = jnp.asarray(IMAGE, jnp.float32)
    np.testing.assert_array_equal(make("blur, circular").start(blurred), blurred)


def test_masks_follow_their_key_and_cover_what_they_say():
    shape = (64, 96)
    makers = {
        "random": functools.partial(random_mask, image_shape=shape, known=0.3),
        "box": functools.partial(box_mask, image_shape=shape, size=(20, 30)),
        "strokes": functools.partial(stroke_mask, image_shape=shape, strokes=3, steps=5, width=0.1),
        "free-form": functools.partial(free_form_mask, image_shape=shape, missing=0.2),
    }
    for name, draw in makers.items():
        first = np.asarray(draw(jax.random.key(0)))
        assert first.shape == shape and first.dtype == bool, name
        np.testing.assert_array_equal(first, draw(jax.random.key(0)))
        assert (first != np.asarray(draw(jax.random.key(1)))).any(), name
    assert abs(np.mean(makers["random"](jax.random.key(2))) - 0.3) < 0.03
    box = ~np.asarray(makers["box"](jax.random.key(2)))
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    assert len(rows) == np.ptp(rows) + 1 == 20 and len(columns) == np.ptp(columns) + 1 == 30 and box.sum() == 600
    missing = [1 - float(np.mean(makers["strokes"](jax.random.key(i)))) for i in range(3)]
    assert all(0.005 < fraction < 0.4 for fraction in missing)


def masks_of(draw, count):
    return ~np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(5), count)))


def test_boxes_reach_every_corner():
    missing = masks_of(lambda key: box_mask(key, (8, 11), size=(3, 4)), 500)  # 6 x 8 places
    assert (missing.sum((1, 2)) == 12).all() and missing.any(0).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda key, n: box_mask(key, (16, 24), size=(6, 8), boxes=n),
        lambda key, n: stroke_mask(key, (16, 24), strokes=n, steps=3, width=0.3),
    ],
    ids=["boxes", "strokes"],
)
def test_several_holes_are_drawn_independently(draw):
    """A pixel is spared by three with the cube of the probability that one spares it."""
    one, three = (1 - masks_of(functools.partial(draw, n=n), 3000).mean(0) for n in (1, 3))
    assert 0.03 < (one - one**3).mean()
    np.testing.assert_allclose(three.mean(), (one**3).mean(), atol=0.01)
    np.testing.assert_allclose(three, one**3, atol=0.06)


def test_strokes_have_the_size_that_they_say():
    """A piece is a rectangle w x 1.5 w with round ends, of area (1.5 + pi/4) w^2, w from half to all of the width."""
    side = 128
    draw = functools.partial(stroke_mask, image_shape=(side, side), strokes=1, width=0.15)
    single = masks_of(functools.partial(draw, steps=1), 200)
    edge = np.ones((side, side), bool)
    edge[1:-1, 1:-1] = False
    whole = single[~(single & edge).any((1, 2))]
    share = np.sqrt(whole.sum((1, 2)) / (1.5 + np.pi / 4)) / (0.15 * side)
    assert len(whole) > 100 and 0.49 < share.min() < 0.53 and 0.97 < share.max() < 1.01
    for piece, w in zip(whole[:20], share * 0.15 * side, strict=False):
        assert abs(ndimage.distance_transform_edt(piece).max() - w / 2) < 1  # no pixel is deeper in than w / 2
    # Twelve pieces that turn by little hide little of each other, and keep their width.
    many, once = (masks_of(functools.partial(draw, steps=n, width=0.03), 200) for n in (12, 1))
    inside = ~(many & edge).any((1, 2)) & ~(once & edge).any((1, 2))
    ratio = (many.sum((1, 2)) / np.maximum(once.sum((1, 2)), 1))[inside]
    straight = (12 * 1.5 + np.pi / 4) / (1.5 + np.pi / 4)
    assert 0.93 * straight < np.median(ratio) < 1.05 * straight


def test_strokes_start_anywhere():
    missing = masks_of(lambda key: stroke_mask(key, (24, 96), strokes=1, steps=1, width=0.2), 2000)
    assert (missing.mean(0) > 0).all()
    quarters = missing.sum((0, 1)).reshape(4, 24).sum(1)
    np.testing.assert_allclose(quarters / quarters.sum(), 0.25, atol=0.03)


def test_free_form_gaps_have_their_share_and_grow_with_it():
    for shape in ((20, 30), (9, 14)):
        few, many = (masks_of(lambda key, m=m, s=shape: free_form_mask(key, s, missing=m), 50) for m in (0.1, 0.5))
        for masks, share in ((few, 0.1), (many, 0.5)):
            assert (abs(masks.sum((1, 2)) - share * np.prod(shape)) <= 1).all()
        assert not (few & ~many).any() and len(np.unique(few, axis=0)) == 50
    reached = masks_of(lambda key: free_form_mask(key, (16, 24), missing=0.05), 300).mean(0)
    assert reached.min() > 0 and reached.max() < 0.12  # anywhere, a little less at the edges


def test_free_form_gaps_are_strokes_of_the_width_that_they_say():
    """No pixel is deeper in a gap of one stroke than half its width, and most gaps have no speckles."""
    wide, side = 0.1, 96
    gaps = masks_of(lambda key: free_form_mask(key, (side, side), missing=0.02, width=wide), 40)
    depth = np.asarray([ndimage.distance_transform_edt(np.pad(gap, 8, mode="edge")).max() for gap in gaps])
    assert 0.4 * wide * side / 2 - 1 < depth.min() and np.median(depth) < wide * side / 2 + 1
    parts = np.asarray([ndimage.label(gap, np.ones((3, 3)))[1] for gap in gaps])
    assert np.median(parts) <= 3 and parts.max() < 12


@pytest.mark.parametrize("name", FACTORIES)
def test_complex_images_are_measured_part_by_part(name):
    operator = make(name)
    x = jnp.asarray(IMAGE + 1j * IMAGE[::-1], jnp.complex64)
    y = operator(x)
    assert y.dtype == jnp.complex64
    np.testing.assert_array_equal(y.real, operator(x.real))
    np.testing.assert_array_equal(y.imag, operator(x.imag))
    assert dot_test(operator, (H, W), key=jax.random.key(0), dtype=jnp.complex64) < 1e-5
    assert operator.start(y).dtype == jnp.complex64


def test_a_whole_number_may_be_written_as_a_float():
    image = jnp.asarray(IMAGE, jnp.float32)
    operator = Downsample(image_shape=(12.0, 16), factor=2.0)
    assert operator.measurement_shape == (6, 8)
    np.testing.assert_array_equal(operator(image), Downsample(**SHAPE, factor=2)(image))
    assert operator.start(operator(image)).shape == (12, 16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Blur(**SHAPE, kernel=np.zeros((3, 3))), "kernel"),
        (lambda: Blur(**SHAPE, kernel=1j * np.ones((3, 3))), "kernel must be real"),
        (lambda: Blur(**SHAPE, kernel=np.full((3, 3), 1e300)), "magnitudes sum to 9e\\+300"),
        (lambda: Blur(**SHAPE, kernel=np.full((3, 3), 1e-40)), "magnitudes sum to 9e-40"),
        (lambda: Downsample(image_shape=(12, 15), factor=1.5), "factor 1.5"),
        (lambda: Blur(image_shape=(12.5, 16), kernel=np.ones((3, 3))), "image_shape"),
        (lambda: Blur(**SHAPE, kernel=np.ones((13, 3))), "larger than the image"),
        (lambda: Blur(**SHAPE, kernel=np.ones((3, 3)), boundary="wrap"), "circular, reflect, zero, got 'wrap'"),
        (lambda: Downsample(**SHAPE, factor=17), "factor 17"),
        (lambda: Downsample(**SHAPE, factor=float("nan")), "factor nan"),
        (lambda: Downsample(**SHAPE, factor=2, method="cubic"), "block, bicubic"),
        (lambda: Inpaint(mask=np.zeros((4, 4))), "known pixel"),
        (lambda: Inpaint(mask=np.full((4, 4), 0.5)), "0 and 1"),
        (lambda: Identity(image_shape=(4, 0)), "image_shape"),
        (lambda: gaussian_kernel(0.0), "sigma"),
        (lambda: gaussian_kernel(1.0, 4), "odd"),
        (lambda: gaussian_kernel(1e9), "sigma must be .* at most"),
        (lambda: gaussian_kernel(1.0, 3.5), "whole number"),
        (lambda: uniform_kernel(2.5), "whole number"),
        (lambda: uniform_kernel(10**9), "whole number, at most"),
        (lambda: motion_kernel(-1.0, 0.0), "length"),
        (lambda: motion_kernel(1e9, 0.0), "length must be from 0 to"),
        (lambda: random_mask(jax.random.key(0), (4, 4), known=1.5), "known"),
        (lambda: box_mask(jax.random.key(0), (4, 4), size=(5, 1)), "boxes"),
        (lambda: stroke_mask(jax.random.key(0), (4, 4), width=0.0), "width"),
        (lambda: free_form_mask(jax.random.key(0), (4, 4), missing=0.95), "missing 0.95 must be 0.001 to 0.9"),
        (lambda: Identity(image_shape=(4, 4))(jnp.ones((4, 5))), r"image of shape \(4, 4\)"),
        (lambda: Identity(image_shape=(4, 5))(jnp.ones((5, 4))), r"image of shape \(4, 5\)"),
    ],
)
def test_impossible_operators_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_mask_that_is_traced_makes_the_same_operator():
    key, image = jax.random.key(1), jax.random.uniform(jax.random.key(2), (9, 7, 2))

    def start(key):
        return Inpaint(mask=random_mask(key, (9, 7))).start(image)

    np.testing.assert_array_equal(jax.jit(start)(jax.random.clone(key)), start(key))


def test_masks_side_by_side_are_those_one_by_one():
    masks = jnp.stack([jnp.eye(4, 5), jnp.eye(4, 5)[::-1], jnp.ones((4, 5))])
    x = jnp.asarray(IMAGE[:4, :5], jnp.float32)
    found = jax.jit(jax.vmap(lambda mask: Inpaint(mask=mask).start(Inpaint(mask=mask)(x))))(masks)
    for mask, start in zip(masks, found, strict=True):
        operator = Inpaint(mask=mask)
        np.testing.assert_array_equal(start, operator.start(operator(x)))
