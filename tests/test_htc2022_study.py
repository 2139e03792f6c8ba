"""The study of real limited-angle scans: its scans, its options and what it keeps."""

import argparse
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_weights

from studies.htc2022.data import Arc, Phantom, scanner
from studies.htc2022.discs import disc

study = pytest.importorskip("studies.htc2022.__main__")


def arc(name, first, last):
    """Half-degree steps; every value of a view is its angle in degrees."""
    angles = np.arange(first, last + 0.25, 0.5)
    return Arc(name, np.deg2rad(angles), np.broadcast_to(angles[:, None], (len(angles), 560)))


def run(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["htc2022", *map(str, options)])
    study.main()


def test_a_synthetic_disc_is_scanned_from_its_number_alone(monkeypatch):
    monkeypatch.setattr(study, "TRUTH_SIDE", 96)  # of 512, to save time
    third, first = study.synthetic([3, 0], [1.0])
    np.testing.assert_array_equal(third.truth, disc(1, 3, side=96) > 0.5)
    (one,), (again,) = first.arcs, study.synthetic([0], [1.0])[0].arcs
    assert one.name == "disc0_1" and np.ptp(one.angles) == pytest.approx(np.deg2rad(1.0)) and len(one.angles) == 2
    np.testing.assert_array_equal(one.angles, again.angles)
    np.testing.assert_array_equal(one.sinogram, again.sinogram)
    assert (one.angles[0] - third.arcs[0].angles[0]) % (2 * np.pi) > 0.01
    rays = scanner(one, 96)(jnp.asarray(disc(1, 0, side=96)))
    assert np.std(one.sinogram - rays) == pytest.approx(0.4, rel=0.05)


def test_the_scans_are_views_of_all_and_thinned_arcs_or_those_asked_for():
    phantom = Phantom((arc("tx_0_30", 0, 30), arc("tx_20_60", 20, 60)), np.zeros((8, 8), bool))
    drawn, narrow, wide = study.scans("tx", phantom)
    assert [a.name for a in (drawn, narrow, wide)] == ["tx_all", "tx_0_30", "tx_20_60"]
    np.testing.assert_allclose(drawn.sinogram[:, 0], (np.arange(20) * 121) // 20 / 2)
    np.testing.assert_allclose(np.rad2deg(wide.angles), np.arange(20, 60.5, 1))
    np.testing.assert_allclose(wide.sinogram[:, 0], np.arange(20, 60.5, 1))
    assert [a.name for a in study.scans("tx", phantom, ["tx_all", "tx_0_30"])] == ["tx_all", "tx_0_30"]


def test_corrected_values_are_those_of_the_whole_arc():
    """The air is the median of the edges of all its views, whichever are used afterwards."""
    values = arc("tx_0_2", 0, 2).sinogram.copy()
    values[:, 100] += 3
    phantom = Phantom((Arc("tx_0_2", np.zeros(5), values),), np.zeros((8, 8), bool))
    calibration = study.Calibration(np.asarray([2.0, 1.0]), 0.1, (0.04, 0.01), 0.3)
    (found,) = study.corrected(phantom, calibration).arcs
    above = values[:, 100] - 1.0  # views at 0 .. 2 degrees
    np.testing.assert_allclose(found.sinogram[:, 100], 2 * above + above**2, rtol=1e-5)
    assert found.shift == 0.3


@pytest.fixture
def small(monkeypatch):
    """Images of 32 pixels, a prior of 16, truths of 64 and few bins."""
    for name, value in {"TRUTH_SIDE": 64, "SIDE": 32, "PRIOR_SIDE": 16, "BIN": 8, "LEVEL_SET_BIN": 2}.items():
        monkeypatch.setattr(study, name, value)
    return "--spans", 1, "--synthetic", 0


def test_a_run_that_is_killed_keeps_the_scans_that_it_has(small, tmp_path, monkeypatch, capsys):
    real, seen = study.methods, []

    def killed(arc, *rest):
        seen.append(arc.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(arc, *rest)

    monkeypatch.setattr(study, "methods", killed)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *small, 3, "--out", tmp_path)
    assert stopped.value.code == 130 and seen == ["disc0_1", "disc3_1"]
    (row,) = json.loads((tmp_path / "arcs.json").read_text())["rows"]
    assert row["scan"] == "disc0_1" and -1 <= row["TV"]["matthews"] <= 1
    assert (
        f"| disc0_1 | 1.0 | 2 | {row['FBP']['matthews']:.4f} | {row['TV']['matthews']:.4f} |" in capsys.readouterr().out
    )
    assert set(np.load(tmp_path / "images.npz").files) == {"disc0_1/FBP", "disc0_1/TV"}
    assert (tmp_path / "arcs.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--chains 0", "--chains 0: at least 1 is needed"),
        ("--phantoms tz", "there is no phantom tz; it holds tb"),
        ("--scans tb_all tb_0_31", "--scans tb_0_31: no such scan; --phantoms tb: tb_all, tb_0_30"),
    ],
)
def test_a_mistaken_option_is_refused_before_the_work(options, message, monkeypatch, capsys):
    phantoms = {"tb": Phantom((arc("tb_0_30", 0, 30),), np.zeros((8, 8), bool))}
    monkeypatch.setattr(study, "read_htc2022", lambda path: phantoms)
    monkeypatch.setattr(study, "joined_score", lambda *_: pytest.fail("it was not refused before the work"))
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", "some.npz", *options.split())
    assert message in capsys.readouterr().err


def test_the_prior_takes_coarse_bins_and_the_level_set_fine_ones_of_equal_weight(small, monkeypatch, tmp_path):
    weights, seen = write_weights(tmp_path / "w.safetensors", image_shape=(16, 16)), []

    def restarts(key, arc, prior, *, fit, **options):
        seen.append((arc, prior, options))
        return fit(jnp.eye(16))

    def level_set_fit(arc, side, noise):
        seen.append((arc, side, noise))
        return lambda image: jnp.eye(side)

    monkeypatch.setattr(study, "restarts", restarts)
    monkeypatch.setattr(study, "level_set_fit", level_set_fit)
    run(monkeypatch, *small, "--chains", 3, "--weights", weights, "--out", tmp_path / "out")
    (fine, side, finer_noise), (coarse, prior, options) = seen
    assert coarse.sinogram.shape[1] == 70 and prior.frame.image_shape == (16, 16)
    assert (options["chains"], options["noise"]) == (3, 0.3)
    assert fine.sinogram.shape[1] == 280 and side == 32 and finer_noise == pytest.approx(0.6)
    assert np.load(tmp_path / "out" / "images.npz")["disc0_1/TMPD"].shape == (32, 32)
    args = argparse.Namespace(seed=0, chains=1)
    study.methods(arc("a", 0, 1), args, prior, study.Calibration(np.ones(1), 0.1, (0.04, 0.01)))
    fine, _, finer_noise = seen[2]
    np.testing.assert_allclose(finer_noise, 2 * np.sqrt(0.04 + 0.01 * fine.sinogram**2), rtol=1e-5)


def test_a_prior_of_another_size_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--synthetic", 0, "--weights", write_weights(tmp_path / "w.safetensors"))
    assert "w.safetensors: its images have (16, 16) pixels, not 64" in capsys.readouterr().err


def test_the_picture_shows_every_scan_by_every_method_with_its_score():
    rows = [{"scan": scan, **{m: {"matthews": 0.25 * n} for m in ("FBP", "TV")}} for n, scan in enumerate("ab")]
    images = {f"{scan}/{m}": np.full((4, 4), ord(scan) + len(m), np.float32) for scan in "ab" for m in ("FBP", "TV")}
    axes = study.picture(rows, images).axes
    assert [ax.get_title() for ax in axes] == ["a\nFBP 0.000", "b\nFBP 0.250", "a\nTV 0.000", "b\nTV 0.250"]
    assert [int(ax.images[0].get_array()[0, 0]) for ax in axes] == [100, 101, 99, 100]
