"""The reader of the real scans; and, where the file is at hand (HTC2022=...), that their geometry is right."""

import argparse
import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_weights

from padis_jax import load_prior
from padis_jax.errors import UserError
from padis_jax.operators import dot_test
from padis_jax.phantoms import disc
from padis_jax.scans.htc2022 import BINS, Arc, bin_detector, draw_views, join, read_htc2022, scanner


def write(path, **change):
    rng = np.random.default_rng(0)
    arrays = {
        "tx_0_3/sinogram": rng.random((7, BINS), np.float32),
        "tx_0_3/angles_degrees": np.arange(0, 3.5, 0.5),
        "tx_2_4/sinogram": rng.random((5, BINS), np.float32),
        "tx_2_4/angles_degrees": np.arange(2, 4.5, 0.5),
        "tx/truth": np.eye(512, dtype=np.uint8),
    }
    arrays |= {name.replace("__", "/"): value for name, value in change.items()}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_arcs_are_read_from_narrow_to_wide_and_joined_without_repeats(tmp_path):
    phantom = read_htc2022(write(tmp_path / "a.npz"))["tx"]
    assert [arc.name for arc in phantom.arcs] == ["tx_2_4", "tx_0_3"]
    assert phantom.truth.dtype == bool and phantom.truth.sum() == 512
    assert [arc.degrees for arc in phantom.arcs] == pytest.approx([2, 3])
    joined = join(phantom.arcs)
    np.testing.assert_allclose(joined.angles, np.deg2rad(np.arange(0, 4.5, 0.5)))
    np.testing.assert_array_equal(joined.sinogram[4:], phantom.arcs[0].sinogram)
    np.testing.assert_array_equal(joined.sinogram[:4], phantom.arcs[1].sinogram[:4])


def test_angles_a_turn_apart_are_one_view_and_views_are_joined_in_the_order_of_the_turn():
    """Of 350, 360 and 370 degrees the last two are 0 and 10, the first of which the other arc has too."""
    late = Arc("late", np.deg2rad([350.0, 360.0, 370.0]), np.full((3, 4), 1.0))
    early = Arc("early", np.deg2rad([0.0, 5.0, -20.0]), np.full((3, 4), 2.0))
    joined = join([late, early], "both")
    assert joined.name == "both"
    np.testing.assert_allclose(np.rad2deg(joined.angles) % 360, [0, 5, 10, 340, 350])
    np.testing.assert_array_equal(joined.sinogram[:, 0], [1, 2, 1, 2, 1])
    np.testing.assert_array_equal(join([early, late]).sinogram[:, 0], [2, 2, 1, 2, 1])


def test_views_are_drawn_evenly_and_bins_joined(tmp_path):
    arc = read_htc2022(write(tmp_path / "a.npz"))["tx"].arcs[1]
    few = draw_views(arc, 3)
    np.testing.assert_allclose(np.rad2deg(few.angles), [0, 1, 2])
    np.testing.assert_array_equal(few.sinogram, arc.sinogram[[0, 2, 4]])
    np.testing.assert_allclose(np.rad2deg(draw_views(arc, 5).angles), [0, 0.5, 1, 2, 2.5])
    binned = bin_detector(arc, 4)
    np.testing.assert_allclose(binned.sinogram[2, 3], arc.sinogram[2, 12:16].mean(), rtol=1e-6)
    geometry = scanner(binned, 32).geometry
    assert geometry.detector_count == 140
    assert geometry.detector_spacing * 140 == pytest.approx(BINS * 0.2)
    assert geometry.pixel_size * 32 == pytest.approx(512 * 0.14832232)
    with pytest.raises(UserError, match="cannot draw 8 of 7"):
        draw_views(arc, 8)
    with pytest.raises(UserError, match="cannot be joined by 3"):
        bin_detector(arc, 3)


def test_the_shift_of_the_detector_stays_with_the_views():
    arc = Arc("a", np.deg2rad([0.0, 1.0, 2.0]), np.zeros((3, BINS), np.float32), 0.3)
    part = bin_detector(draw_views(join([arc, arc._replace(name="b")]), 2), 4)
    assert part.shift == 0.3 and scanner(part, 32).geometry.detector_offset == 0.3
    with pytest.raises(UserError, match="joined: the detector of a, b is not shifted alike"):
        join([arc, arc._replace(name="b", shift=0.0)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tx__truth=None), "tx/truth"),
        (dict(tx_0_3__angles_degrees=None), "tx_0_3/angles_degrees"),
        (dict(tx_0_3__angles_degrees=np.arange(3.0)), r"tx_0_3/sinogram.*\(7, 560\)"),
        (dict(tx_0_3__sinogram=np.full((7, BINS), np.nan)), "tx_0_3 holds numbers that are not finite"),
        (dict(stray__sinogram=np.ones((1, BINS))), "stray should be called"),
        (dict(tx__truth=np.asarray([None])), "holds objects"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path, change, message):
    path = write(tmp_path / "a.npz", **change)
    with pytest.raises(UserError, match=message) as refused:
        read_htc2022(path)
    assert str(path) in str(refused.value)


def test_a_missing_or_damaged_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_htc2022(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="a.npz: not a readable"):
        read_htc2022(tmp_path / "a.npz")


def test_the_image_is_the_mean_of_chains_that_go_from_coarse_to_fine(tmp_path, monkeypatch):
    stages = pytest.importorskip("benchmarks.coarse_to_fine")
    sides = (16, 32)
    priors = [load_prior(write_weights(tmp_path / f"{n}.safetensors", image_shape=(n, n), seed=n)) for n in sides]
    angles = np.deg2rad(np.arange(0, 30, 5.0))
    arc = Arc("a", angles, np.random.default_rng(0).uniform(size=(len(angles), 40)).astype(np.float32))
    noise = np.broadcast_to(np.where(np.arange(40) < 20, 0.06, 0.08), arc.sinogram.shape)
    calls, keys, told, real = [], [], [], stages.reconstruct

    def recorded(key, y, operator, prior, **options):
        solved = real(key, y, operator, prior, **options)
        calls.append((operator.image_shape[0], prior, options["sigma_max"], options["start"], solved.image[..., 0]))
        keys.append(tuple(np.asarray(jax.random.key_data(key))))
        told.append((options["levels"], options["settings"].noise, np.asarray(y)[..., 0]))
        return solved

    monkeypatch.setattr(stages, "reconstruct", recorded)
    monkeypatch.setattr(stages, "FIRST_LEVELS", 4)
    coarse = stages.Stage(sigma=1.0, last=0.1, levels=2, passes=1, cg_steps=1, noise=0.5, smooth=1.0)
    fine = stages.Stage(sigma=0.4, last=0.1, levels=3, passes=2, cg_steps=1)
    image = stages.coarse_to_fine(
        jax.random.key(0), arc, priors, noise=noise, side=32, chains=2, coarse=coarse, fine=fine
    )
    levels = [(16, 3.0), (16, 1.0), (32, 0.4), (32, 0.4)] * 2
    assert [(side, sigma) for side, _, sigma, _, _ in calls] == levels
    assert all(prior is priors[side == 32] for side, prior, *_ in calls)
    assert len(set(keys)) == 8
    typical = np.sqrt((0.06**2 + 0.08**2) / 2)
    assert [count for count, *_ in told] == [4, 2, 3, 3] * 2
    np.testing.assert_allclose(
        [said for _, said, _ in told], [typical / 2, typical / 2, typical, typical] * 2, rtol=1e-6
    )
    np.testing.assert_allclose(told[-1][2], arc.sinogram * typical / noise, rtol=1e-6)
    smooth = stages.smoothing(scanner(arc, 16), 1.0)(arc.sinogram[..., None])[..., 0]
    np.testing.assert_allclose(told[0][2], smooth * typical / noise, rtol=1e-5)
    starts, images = [np.asarray(call[3]) for call in calls], [np.asarray(call[4]) for call in calls]
    assert not starts[0].any() and not starts[4].any() and (images[1] != images[5]).any()
    for turn in (1, 3, 5, 7):
        np.testing.assert_array_equal(starts[turn], images[turn - 1])
    for turn in (2, 6):
        np.testing.assert_allclose(starts[turn], jax.image.resize(images[turn - 1], (32, 32), "linear"), atol=1e-6)
    np.testing.assert_allclose(image, (images[3] + images[7]) / 2, atol=1e-6)
    monkeypatch.setattr(stages, "reconstruct", real)
    options = dict(noise=noise, side=32, coarse=coarse, fine=fine)
    alone = stages.coarse_to_fine(jax.random.key(0), arc, priors, chains=1, **options)
    np.testing.assert_allclose(alone, images[3], atol=1e-6)  # a chain is the same, however many there are
    for priors_, chains, message in (([], 1, "one prior"), (priors, 0, "one chain")):
        with pytest.raises(ValueError, match=message):
            stages.coarse_to_fine(jax.random.key(0), arc, priors_, chains=chains, **options)
    with pytest.raises(ValueError, match="above 0"):
        stages.coarse_to_fine(jax.random.key(0), arc, priors, chains=1, **(options | dict(noise=0.0)))


def test_contours_are_fitted_after_every_pass_and_the_mean_is_of_the_later_half(tmp_path, monkeypatch):
    stages = pytest.importorskip("benchmarks.coarse_to_fine")
    priors = [load_prior(write_weights(tmp_path / f"{n}.safetensors", image_shape=(n, n), seed=n)) for n in (16, 32)]
    arc = Arc("a", np.deg2rad(np.arange(0, 30, 5.0)), np.full((6, 40), 0.5, np.float32))
    starts, fitted, sides, real = [], [], [], stages.reconstruct

    def recorded(key, y, operator, prior, **options):
        starts.append(options["start"])
        return real(key, y, operator, prior, **options)

    def fit(side):
        def after(image):
            assert side == 2 * image.shape[0]
            fitted.append(jnp.full((side, side), len(fitted) / 10))
            return fitted[-1]

        sides.append(side)
        return after

    monkeypatch.setattr(stages, "reconstruct", recorded)
    stage = stages.Stage(sigma=1.0, last=0.1, levels=2, passes=3, cg_steps=1)
    options = dict(noise=0.1, chains=2, coarse=stage, fine=stage, fit=fit)
    image = stages.coarse_to_fine(jax.random.key(0), arc, priors, side=64, **options)
    assert sides == [32, 64] and len(fitted) == 14
    for turn in (1, 2, 3, 4, 5, 6, 8, 13):
        np.testing.assert_allclose(starts[turn], (turn - 1) / 10, atol=1e-6)
    np.testing.assert_allclose(image, (0.5 + 0.6 + 1.2 + 1.3) / 4, atol=1e-6)
    del fitted[:]
    image = stages.coarse_to_fine(jax.random.key(0), arc, priors[:1], side=32, **(options | dict(chains=1)))
    np.testing.assert_allclose(image, (0.2 + 0.3) / 2, atol=1e-6)
    for passes, last in ((0, 0.0), (1, 0.1)):
        del fitted[:]
        few = options | dict(chains=1, coarse=dataclasses.replace(stage, passes=passes))
        image = stages.coarse_to_fine(jax.random.key(0), arc, priors[:1], side=32, **few)
        np.testing.assert_allclose(image, last, atol=1e-6)


def test_smoothed_rays_of_coarse_pixels_are_those_of_the_disc():
    stages = pytest.importorskip("benchmarks.coarse_to_fine")
    arc = Arc("a", np.deg2rad(np.arange(0, 90, 15.0)), np.empty((6, 140)))
    large, small = scanner(arc, 256), scanner(arc, 64)
    fine = disc(0, 3, side=256)
    coarse = fine.reshape(64, 4, 64, 4).mean((1, 3))[..., None]
    rays = large(jnp.asarray(fine)[..., None])

    def misfit(pixels):
        smooth = stages.smoothing(small, pixels)
        operator = stages.weighted(small, jnp.ones(()), smooth)
        return float(jnp.sqrt(jnp.mean(jnp.square(operator(coarse) - smooth(rays)))))

    assert misfit(1.0) < misfit(0.0) / 2.5
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, small.measurement_shape)[..., None], jnp.float32)
    operator = stages.weighted(small, weights, stages.smoothing(small, 1.0))
    assert dot_test(operator, (64, 64, 1), key=jax.random.key(0)) < 1e-5


def test_smoothing_keeps_what_is_flat_away_from_the_ends_of_the_detector():
    stages = pytest.importorskip("benchmarks.coarse_to_fine")
    smooth = stages.smoothing(scanner(Arc("a", np.zeros(1), np.empty((1, 140))), 64), 1.0)
    flat, single = smooth(jnp.ones((1, 140, 1)))[0, :, 0], smooth(jnp.eye(140)[None, 70, :, None])[0, :, 0]
    np.testing.assert_allclose(flat[12:-12], 1.0, rtol=1e-4)
    # a pixel of 1.187 mm, 1.348 times as large on the detector, in bins of 0.8 mm
    deviation = np.sqrt(np.sum(single * (np.arange(140) - 70.0) ** 2) / np.sum(single))
    np.testing.assert_allclose(deviation, 1.1866 * 1.3484 / 0.8, rtol=2e-3)


def test_a_synthetic_disc_is_scanned_from_its_number_alone(monkeypatch):
    htc2022 = pytest.importorskip("benchmarks.htc2022")
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 96)  # of 512, to save time
    discs = htc2022.synthetic([3, 0], [1.0], 0.4)
    assert list(discs) == ["disc3", "disc0"]
    np.testing.assert_array_equal(discs["disc3"].truth, disc(1, 3, side=96) > 0.5)
    (arc,), (again,) = discs["disc0"].arcs, htc2022.synthetic([0], [1.0], 0.4)["disc0"].arcs
    assert arc.name == "disc0, 1" and np.ptp(arc.angles) == pytest.approx(np.deg2rad(1.0))
    np.testing.assert_array_equal(arc.angles, again.angles)
    np.testing.assert_array_equal(arc.sinogram, again.sinogram)
    assert (arc.angles[0] - discs["disc3"].arcs[0].angles[0]) % (2 * np.pi) > 0.01
    rays = scanner(arc, 96)(jnp.asarray(disc(1, 0, side=96)))
    assert np.std(arc.sinogram - rays) == pytest.approx(0.4, rel=0.05)
    with pytest.raises(UserError, match="--synthetic -1: discs are numbered from 0"):
        htc2022.synthetic([2, -1], [1.0], 0.4)


def test_a_run_that_is_killed_keeps_the_scans_that_it_has(tmp_path, monkeypatch):
    htc2022 = pytest.importorskip("benchmarks.htc2022")
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 64)
    real, seen = htc2022.methods, []

    def killed(arc, *rest):
        seen.append(arc.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(arc, *rest)

    monkeypatch.setattr(htc2022, "methods", killed)
    small = ["--spans", "1", "--side", "32", "--bin", "8", "--thin", "1", "--tv-iterations", "3"]
    monkeypatch.setattr("sys.argv", ["htc2022", "--synthetic", "0", "3", *small, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        htc2022.main()
    assert stopped.value.code == 130 and seen == ["disc0, 1", "disc3, 1"]
    (row,) = json.loads((tmp_path / "arcs.json").read_text())["rows"]
    assert row["scan"] == "disc0, 1" and -1 <= row["TV"]["matthews"] <= 1
    assert set(np.load(tmp_path / "images.npz").files) == {"disc0, 1/FBP", "disc0, 1/TV"}
    assert "disc0, 1" in (tmp_path / "arcs.md").read_text() and (tmp_path / "arcs.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--thin 0", "--thin 0: it must be at least 1"),
        ("--fine-passes -1", "--fine-passes -1: it must be at least 0"),
        ("--noise nan", "--noise nan: it must be at least 0"),
        ("--bin 9", "--bin 9: it must divide the 560 bins"),
        ("--contour-bin 3", "--contour-bin 3: it must divide the 560 bins"),
        ("--contour-bin -1", "--contour-bin -1: it must be at least 0"),
        ("--coarse-levels 0", "--coarse-levels 0: it must be at least 1"),
        ("--spans 33 34", "--spans 33 34: no scan is left; there are tb_0_30 (30 degrees)"),
        ("--scans tb_0_31", "--scans tb_0_31: there is no such scan; there are tb_0_30 (30 degrees)"),
        ("--scans tb_0_30 --spans 50", "--spans 50: no scan is left"),
    ],
)
def test_options_that_cannot_be(options, message, monkeypatch, capsys):
    htc2022 = pytest.importorskip("benchmarks.htc2022")
    arc = Arc("tb_0_30", np.deg2rad(np.arange(0, 30.5, 0.5)), np.zeros((61, 560), np.float32))
    phantoms = {"tb": htc2022.Phantom((arc,), np.zeros((8, 8), bool))}
    monkeypatch.setattr(htc2022, "measured", lambda args: phantoms)
    monkeypatch.setattr(htc2022, "joined_score", lambda phantom, side: 1.0)
    fitted = htc2022.Hardening(np.ones(1), 0.1, (0.1, 0.0))
    monkeypatch.setattr(htc2022, "calibrated", lambda phantoms: (phantoms, fitted))
    monkeypatch.setattr("sys.argv", ["htc2022", *options.split()])
    with pytest.raises(SystemExit) as stopped:
        htc2022.main()
    assert message in capsys.readouterr().err + str(stopped.value)


def test_the_smaller_bins_of_contours_weigh_as_much_together(monkeypatch, tmp_path):
    htc2022 = pytest.importorskip("benchmarks.htc2022")
    arc = Arc("a", np.zeros(2), np.linspace(0, 60, 2 * 560, dtype=np.float32).reshape(2, 560))
    args = argparse.Namespace(bin=8, contour_bin=2, noise=0.0)
    fit = htc2022.contours(arc, args, htc2022.Hardening(np.ones(1), 0.1, (0.04, 0.01)))
    (small,), noise = fit.args, fit.keywords["noise"]
    assert small.sinogram.shape == (2, 280)
    np.testing.assert_allclose(noise, 2 * np.sqrt(0.04 + 0.01 * small.sinogram**2), rtol=1e-5)
    args.noise = 0.3
    assert htc2022.contours(arc, args, None).keywords["noise"] == pytest.approx(0.6)
    # the prior's images have half as many pixels along a side as those whose contours are fitted
    weights, seen = str(write_weights(tmp_path / "w.safetensors", image_shape=(16, 16))), []
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 64)
    monkeypatch.setattr(htc2022, "coarse_to_fine", lambda *a, fit, **o: seen.append((fit, o)) or np.eye(o["side"]))
    small = [
        "--spans",
        "1",
        "--side",
        "32",
        "--bin",
        "8",
        "--thin",
        "1",
        "--tv-iterations",
        "3",
        "--coarse-levels",
        "7",
    ]
    monkeypatch.setattr(
        "sys.argv",
        [
            "htc2022",
            "--synthetic",
            "0",
            *small,
            "--contour-bin",
            "4",
            "--weights",
            weights,
            "--out",
            str(tmp_path / "o"),
        ],
    )
    htc2022.main()
    ((fit, options),) = seen
    assert fit.args[0].sinogram.shape[1] == 140 and options["side"] == 32 and options["coarse"].levels == 7


def test_priors_of_another_size_are_refused(tmp_path):
    htc2022 = pytest.importorskip("benchmarks.htc2022")
    paths = [str(write_weights(tmp_path / f"{n}.safetensors", image_shape=(n, n))) for n in (16, 32)]
    assert [p.frame.image_shape[0] for p in htc2022.read_priors(paths, 32)] == [16, 32]
    for wrong, side in ((paths[::-1], 32), (paths, 64), (paths[1:], 33)):
        with pytest.raises(UserError, match=r"its images have .* coarse weights before fine"):
            htc2022.read_priors(wrong, side)


def test_the_picture_shows_every_scan_by_every_method_with_its_score():
    report = pytest.importorskip("benchmarks.htc2022_report")
    rows = [{"scan": scan, **{m: {"matthews": 0.25 * n} for m in ("FBP", "TV")}} for n, scan in enumerate("ab")]
    images = {f"{scan}/{m}": np.full((4, 4), ord(scan) + len(m), np.float32) for scan in "ab" for m in ("FBP", "TV")}
    axes = report.picture(rows, images).axes
    assert [ax.get_title() for ax in axes] == ["a\nFBP 0.000", "b\nFBP 0.250", "a\nTV 0.000", "b\nTV 0.250"]
    assert [int(ax.images[0].get_array()[0, 0]) for ax in axes] == [100, 101, 99, 100]


@pytest.mark.slow
@pytest.mark.skipif("HTC2022" not in os.environ, reason="the scans are not part of the project: HTC2022 names the file")
def test_the_joined_arcs_show_the_disc():
    pytest.importorskip("skimage")
    from benchmarks.htc2022 import joined_score

    phantom = read_htc2022(os.environ["HTC2022"])["tb"]
    half = phantom._replace(arcs=tuple(Arc(a.name, a.angles[::2], a.sinogram[::2]) for a in phantom.arcs))
    assert joined_score(half, 256) > 0.97
    # A wrong sense of rotation is seen at once.
    turned = half._replace(arcs=tuple(arc._replace(angles=-arc.angles) for arc in half.arcs))
    assert joined_score(turned, 64) < 0.7
