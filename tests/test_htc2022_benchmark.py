"""The benchmark of real limited-angle scans: its scans, its options and what it keeps."""

import argparse
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_weights

from padis_jax.errors import UserError
from studies.htc2022.data import Arc, Phantom, scanner
from studies.htc2022.discs import disc

htc2022 = pytest.importorskip("studies.htc2022")
htc2022_report = pytest.importorskip("studies.htc2022.report")
SMALL = "--synthetic 0 --spans 1 --side 32 --bin 8 --thin 1 --tv-iterations 3"


def test_a_synthetic_disc_is_scanned_from_its_number_alone(monkeypatch):
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 96)  # of 512, to save time
    discs = htc2022.synthetic([3, 0], [1.0], 0.4)
    assert list(discs) == ["disc3", "disc0"]
    np.testing.assert_array_equal(discs["disc3"].truth, disc(1, 3, side=96) > 0.5)
    (arc,), (again,) = discs["disc0"].arcs, htc2022.synthetic([0], [1.0], 0.4)["disc0"].arcs
    assert arc.name == "disc0_1" and np.ptp(arc.angles) == pytest.approx(np.deg2rad(1.0))
    np.testing.assert_array_equal(arc.angles, again.angles)
    np.testing.assert_array_equal(arc.sinogram, again.sinogram)
    assert (arc.angles[0] - discs["disc3"].arcs[0].angles[0]) % (2 * np.pi) > 0.01
    rays = scanner(arc, 96)(jnp.asarray(disc(1, 0, side=96)))
    assert np.std(arc.sinogram - rays) == pytest.approx(0.4, rel=0.05)
    with pytest.raises(UserError, match="--synthetic -1: discs are numbered from 0"):
        htc2022.synthetic([2, -1], [1.0], 0.4)


def test_the_scans_are_views_of_all_and_thinned_arcs_or_those_asked_for():
    def arc(name, first, last):
        angles = np.arange(first, last + 0.25, 0.5)
        return Arc(name, np.deg2rad(angles), np.broadcast_to(angles[:, None], (len(angles), 560)))

    phantom = Phantom((arc("tx_0_30", 0, 30), arc("tx_20_60", 20, 60)), np.zeros((8, 8), bool))

    def scans(**options):
        every = dict(views=20, thin=3, spans=None, scans=None, synthetic=None)
        return htc2022.scans("tx", phantom, argparse.Namespace(**every | options))

    drawn, narrow, wide = scans()
    assert [a.name for a in (drawn, narrow, wide)] == ["tx_all", "tx_0_30", "tx_20_60"]
    np.testing.assert_allclose(drawn.sinogram[:, 0], (np.arange(20) * 121) // 20 / 2)
    np.testing.assert_allclose(np.rad2deg(wide.angles), np.arange(20, 60.5, 1.5))
    np.testing.assert_allclose(wide.sinogram[:, 0], np.arange(20, 60.5, 1.5))
    assert [a.name for a in scans(spans=[40.0])] == ["tx_20_60"]
    assert [a.name for a in scans(scans=["tx_all", "tx_0_30"])] == ["tx_all", "tx_0_30"]
    assert [a.name for a in scans(synthetic=[0], spans=[33.0])] == ["tx_0_30", "tx_20_60"]
    assert [a.name for a in scans(scans=["tx_0_30"], views=1000)] == ["tx_0_30"]


def test_a_run_that_is_killed_keeps_the_scans_that_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 64)
    real, seen = htc2022.methods, []

    def killed(arc, *rest):
        seen.append(arc.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(arc, *rest)

    monkeypatch.setattr(htc2022, "methods", killed)
    options = SMALL.replace("--synthetic 0", "--synthetic 0 3")
    monkeypatch.setattr("sys.argv", ["htc2022", *options.split(), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        htc2022.main()
    assert stopped.value.code == 130 and seen == ["disc0_1", "disc3_1"]
    (row,) = json.loads((tmp_path / "arcs.json").read_text())["rows"]
    assert row["scan"] == "disc0_1" and -1 <= row["TV"]["matthews"] <= 1
    assert set(np.load(tmp_path / "images.npz").files) == {"disc0_1/FBP", "disc0_1/TV"}
    assert "disc0_1" in (tmp_path / "arcs.md").read_text() and (tmp_path / "arcs.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--thin 0", "--thin 0: it must be at least 1"),
        ("--passes -1", "--passes -1: it must be at least 0"),
        ("--noise nan", "--noise nan: it must be at least 0"),
        ("--bin 9", "--bin 9: it must divide the 560 bins"),
        ("--contour-bin 3", "--contour-bin 3: it must divide the 560 bins"),
        ("--contour-bin -1", "--contour-bin -1: it must be at least 0"),
        ("--levels 0", "--levels 0: it must be at least 1"),
        ("--views 62", "--views 62: tb_all: cannot draw 62 of 61 views"),
        ("--synthetic 0 --joined", "leave out --synthetic"),
        ("--spans 33 34", "--spans 33 34: no scan is left; the arcs of --phantoms tb: tb_0_30 (30 degrees)"),
        ("--scans tb_0_31", "--scans tb_0_31: no such scan"),
        ("--scans tb_0_30 --spans 50", "or left out by --spans; the arcs of --phantoms tb: tb_0_30 (30 degrees)"),
    ],
)
def test_options_that_cannot_be(options, message, monkeypatch, capsys):
    arc = Arc("tb_0_30", np.deg2rad(np.arange(0, 30.5, 0.5)), np.zeros((61, 560), np.float32))
    phantoms = {"tb": Phantom((arc,), np.zeros((8, 8), bool))}
    monkeypatch.setattr(htc2022, "measured", lambda args: phantoms)
    monkeypatch.setattr(htc2022, "joined_score", lambda *_: pytest.fail("it was not refused before the work"))
    monkeypatch.setattr("sys.argv", ["htc2022", *options.split()])
    with pytest.raises(SystemExit) as stopped:
        htc2022.main()
    assert message in capsys.readouterr().err + str(stopped.value)


def test_the_smaller_bins_of_contours_weigh_as_much_together(monkeypatch):
    seen = []
    monkeypatch.setattr(htc2022, "contour_fit", lambda *a, **o: seen.append((*a, o["noise"])))
    arc = Arc("a", np.zeros(2), np.linspace(0, 60, 2 * 560, dtype=np.float32).reshape(2, 560))
    args = argparse.Namespace(bin=8, contour_bin=2, noise=0.0, side=32)
    htc2022.contours(arc, args, htc2022.Hardening(np.ones(1), 0.1, (0.04, 0.01)))
    args.noise = 0.3
    htc2022.contours(arc, args, None)
    (small, side, noise), (_, _, same) = seen
    assert small.sinogram.shape == (2, 280) and side == 32
    np.testing.assert_allclose(noise, 2 * np.sqrt(0.04 + 0.01 * small.sinogram**2), rtol=1e-5)
    assert same == pytest.approx(0.6)


@pytest.mark.parametrize(("contour_bin", "prior_side"), [(4, 16), (0, 32)])
def test_the_prior_is_for_half_the_side_unless_no_contours_are_fitted(contour_bin, prior_side, monkeypatch, tmp_path):
    weights, seen = write_weights(tmp_path / "w.safetensors", image_shape=(prior_side, prior_side)), []
    monkeypatch.setattr(htc2022, "TRUTH_SIDE", 64)

    def passes(key, arc, prior, **options):
        image = jnp.eye(prior_side)
        seen.append((arc, prior, options))
        return options["fit"](image) if options["fit"] else image

    monkeypatch.setattr(htc2022, "passes", passes)
    monkeypatch.setattr(htc2022, "contour_fit", lambda arc, side, noise: lambda image: jnp.eye(side))
    options = f"{SMALL} --contour-bin {contour_bin} --levels 7 --passes 2 --chains 3 --weights {weights}"
    monkeypatch.setattr("sys.argv", ["htc2022", *options.split(), "--out", str(tmp_path / "out")])
    htc2022.main()
    ((arc, prior, options),) = seen
    assert arc.sinogram.shape[1] == 70 and prior.frame.image_shape == (prior_side, prior_side)
    assert (options["settings"].levels, options["settings"].count, options["chains"]) == (7, 2, 3)
    assert options["noise"] == 0.3
    assert np.load(tmp_path / "out" / "images.npz")["disc0_1/TMPD"].shape == (32, 32)


def test_a_prior_of_another_size_is_refused(tmp_path):
    path = str(write_weights(tmp_path / "w.safetensors"))
    assert htc2022.read_prior(path, 16, 1).frame.image_shape == (16, 16)
    assert htc2022.read_prior(path, 32, 2).frame.image_shape == (16, 16)
    for side, finer in ((32, 1), (16, 2), (33, 2)):
        with pytest.raises(UserError, match=r"w.safetensors: its images have 16 x 16 .* --side 32, or 16 with --cont"):
            htc2022.read_prior(path, side, finer)


def test_the_picture_shows_every_scan_by_every_method_with_its_score():
    rows = [{"scan": scan, **{m: {"matthews": 0.25 * n} for m in ("FBP", "TV")}} for n, scan in enumerate("ab")]
    images = {f"{scan}/{m}": np.full((4, 4), ord(scan) + len(m), np.float32) for scan in "ab" for m in ("FBP", "TV")}
    axes = htc2022_report.picture(rows, images).axes
    assert [ax.get_title() for ax in axes] == ["a\nFBP 0.000", "b\nFBP 0.250", "a\nTV 0.000", "b\nTV 0.250"]
    assert [int(ax.images[0].get_array()[0, 0]) for ax in axes] == [100, 101, 99, 100]
