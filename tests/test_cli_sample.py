"""sample.py: a tiny run from weights to results, reproducible by its seed, and one line for every mistake."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import refused, write_weights

from padis_jax.cli import generate
from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD
from padis_jax.metrics import coverage
from padis_jax.runs import score
from padis_jax.runs.html_report import write_report
from padis_jax.weights import file_hash

ROOT = Path(__file__).parent.parent
QUICK = (
    "--solver dds --scan.protocol paper --scan.views 5 --scan.bins 24 --tv.weight 0.1 --tv.iterations 5 "
    "--solver.levels 3 --solver.sigma-max 2 --solver.start noise --solver.average 1 --solver.cg-steps 2 "
    "--solver.consistency 0.1"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights for images of 16 x 16, and such images."""
    folder = tmp_path_factory.mktemp("data")
    write_weights(folder / "w.safetensors")
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    images = np.stack([np.hypot(x, y) < r for r in (0.5, 0.8)]).astype(np.float32) * 0.7
    np.save(folder / "images.npy", images)
    np.save(folder / "wide.npy", np.full((16, 20), 0.5, np.float32))
    np.savez(folder / "volume.npz", volume=np.full((1, 16, 16), 40, np.int16), spacing=np.ones(3))
    return folder


def _arguments(folder, workdir, *more, image="images.npy"):
    start = ["--weights", folder / "w.safetensors", "--image.path", folder / image, "--workdir", workdir]
    return [str(a) for a in (*start, "--image.index", "0", *QUICK, *more)]


def _run(folder, workdir, *more, **kwargs):
    main(_arguments(folder, workdir, *more, **kwargs))
    with np.load(workdir / "reconstruction.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("results") / "one"
    return workdir, _run(folder, workdir, "--seed", "5")


def test_a_report_that_fails_loses_nothing_else(results, folder, tmp_path, monkeypatch, capsys):
    """It comes last, after --save-as; a name that is no UTF-8 does not make it fail."""
    write_report(tmp_path / "name.html", "caf\udce9", pictures={}, rows=[], settings={})
    assert "caf\\udce9" in (tmp_path / "name.html").read_text()

    def broken(*args, **kwargs):
        raise UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed")

    monkeypatch.setattr("padis_jax.runs.results.write_report", broken)
    _run(folder, tmp_path / "out", "--seed", "5", "--save-as", "npz", "png")
    printed = capsys.readouterr()
    assert printed.err.count(f"warning: {tmp_path / 'out' / 'report.html'} could not be written") == 1
    assert "report.html" not in printed.out and "dds.png" in printed.out and "Traceback" not in printed.err
    written = {p.name for p in results[0].iterdir()} - {"report.html"} | {"dds.npz", "dds.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == written


def test_a_run_writes_all_results(results, folder):
    workdir, arrays = results
    assert sorted(p.name for p in workdir.iterdir()) == [
        "comparison.png",
        "config.json",
        "metrics.json",
        "reconstruction.npz",
        "report.html",
        "results.json",
    ]
    listed = json.loads((workdir / "results.json").read_text())["files"]
    assert listed == sorted(p.name for p in workdir.iterdir())
    with Image.open(workdir / "comparison.png") as picture:
        assert min(picture.size) > 100
    assert set(arrays) == {"truth", "FBP", "TV", "DDS", "unit"}
    assert all(
        arrays[name].shape == (16, 16, 1) and arrays[name].dtype == np.float32 for name in arrays if name != "unit"
    )
    assert all(np.isfinite(arrays[name]).all() for name in arrays if name != "unit")
    np.testing.assert_array_equal(arrays["truth"][..., 0], np.load(folder / "images.npy")[0])
    assert str(arrays["unit"]) == "1"


def test_the_report_stands_alone(results):
    page = (results[0] / "report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page and "<script" not in page
    metrics = json.loads((results[0] / "metrics.json").read_text())
    assert f"<td>{metrics['rows'][2]['psnr']:.2f}</td>" in page and "&quot;seed&quot;: 5" in page
    heads = re.findall("<th>(.*?)</th>", page)
    assert heads[:4] == ["method", "PSNR (dB)", "SSIM", "SSIM, Gaussian window"] and heads[4:] == [
        "RMSE",
        "residual",
        "evaluations",
        "seconds",
    ]
    assert re.search(r"<h1>images.npy, \S.*: DDS from ", page)


def test_a_display_changes_pictures_alone(results, folder, tmp_path, capsys):
    again = _run(folder, tmp_path / "a", "--seed", "5", "--display", "0.1:0.3", "auto")
    for name, values in results[1].items():
        np.testing.assert_array_equal(again[name], values)
    with Image.open(results[0] / "comparison.png") as old, Image.open(tmp_path / "a" / "comparison.png") as new:
        assert new.height > 1.2 * old.height  # a row more
    capsys.readouterr()
    given = [*QUICK, "--display", "bone"]
    message = refused(main, _arguments(folder, tmp_path / "b", *given), capsys)
    assert "--display bone: is a window of CT in HU, and these are image values (0 to 1)" in message
    message = refused(main, _arguments(folder, tmp_path / "b", "--display", "spine"), capsys)
    assert "'spine': there is no such display; use brain, bone, lung, body" in message
    assert not (tmp_path / "b").exists()


def test_a_prior_that_explains_less_than_total_variation_is_named(results, folder, tmp_path, capsys):
    """In the table, in metrics.json and in the report; a run that explains as much has no warning."""
    assert "warnings" not in json.loads((results[0] / "metrics.json").read_text())
    assert 'class="warning"' not in (results[0] / "report.html").read_text()
    _run(folder, tmp_path, "--solver.consistency", "1e6")
    said = "DDS explains the measurement worse than total variation does"
    assert f"warning: {said}" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["warnings"][0].startswith(said)
    assert f"<strong>Warning:</strong> {said}" in (tmp_path / "report.html").read_text()


def test_what_was_done_is_written_down(results, folder):
    about = json.loads((results[0] / "config.json").read_text())
    assert about["seed"] == about["experiment"]["seed"] == 5
    assert about["weights_sha256"] == file_hash(folder / "w.safetensors")
    assert about["experiment"]["solver"]["levels"] == 3 and about["experiment"]["scan"]["protocol"] == "paper"
    assert about["experiment"]["tv"] == {"weight": 0.1, "iterations": 5}


def test_metrics_are_finite_and_complete(results):
    metrics = json.loads((results[0] / "metrics.json").read_text())
    assert [row["method"] for row in metrics["rows"]] == ["FBP", "TV", "DDS"]
    assert all(np.isfinite(value) for row in metrics["rows"] for value in row.values() if not isinstance(value, str))
    assert [row["evaluations"] for row in metrics["rows"]] == [0, 0, 3]
    assert len(metrics["residual_per_level"]) == 3 and metrics["protocol"] == "paper"
    # The metrics are those of the arrays beside them.
    arrays = results[1]
    error = np.square(np.clip(arrays["DDS"], 0, 1) - arrays["truth"]).mean()
    assert abs(metrics["rows"][2]["psnr"] + 10 * np.log10(error)) < 1e-3


def test_the_seed_decides(results, folder, tmp_path, capsys):
    again, other = _run(folder, tmp_path / "a", "--seed", "5"), _run(folder, tmp_path / "b", "--seed", "6")
    np.testing.assert_array_equal(again["DDS"], results[1]["DDS"])
    assert np.abs(other["DDS"] - results[1]["DDS"]).max() > 1e-4
    table = capsys.readouterr().out
    assert "PSNR (dB)" in table and "DDS" in table and f"results in {tmp_path / 'b'}" in table


@pytest.mark.slow
def test_a_new_frame_for_another_size(folder, tmp_path):
    arrays = _run(folder, tmp_path / "wide", "--new-frame", image="wide.npy")
    assert arrays["DDS"].shape == (16, 20, 1)


def test_settings_from_a_file_under_flags(folder, tmp_path, capsys):
    """--config names an Experiment; flags override it. Seen by which weights are looked for."""
    config = tmp_path / "mine.py"
    config.write_text(
        "from padis_jax.experiment import Experiment, ImageConfig\n"
        f"config = Experiment(weights='there.safetensors', image=ImageConfig({str(folder / 'images.npy')!r}, 0))\n"
    )
    assert "there.safetensors: no such weights" in refused(main, ["--config", config], capsys)
    assert "here.safetensors: no such" in refused(main, ["--config", config, "--weights", "here.safetensors"], capsys)
    config.write_text("from padis_jax.config import Config\nconfig = Config()\n")
    assert "a padis_jax.runs.config.Experiment" in refused(main, ["--config", config], capsys)


def test_several_samples(folder, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(score, "coverage", lambda *a, **k: seen.append((a, k)) or coverage(*a, **k))
    arrays = _run(folder, tmp_path / "many", "--seed", "5", "--samples", "3")
    one, mean = "DDS, one sample", "DDS, mean of 3"
    assert set(arrays) == {"truth", "FBP", "TV", one, mean, "deviation", "unit"}
    again = _run(folder, tmp_path / "average", "--seed", "5", "--solver.average", "3")
    np.testing.assert_allclose(arrays[mean], again["DDS"], atol=1e-3)
    metrics = json.loads((tmp_path / "many" / "metrics.json").read_text())
    assert [row["evaluations"] for row in metrics["rows"]] == [0, 0, 3, 9]
    (held,) = metrics["samples"]["coverage"]
    assert held["nominal"] == 0.5 and 0 <= held["found"] <= 1
    assert metrics["samples"]["count"] == 3 and arrays["deviation"].min() >= 0 < arrays["deviation"].max()
    assert abs(metrics["samples"]["mean_deviation"] - arrays["deviation"].mean()) < 1e-5
    page = (tmp_path / "many" / "report.html").read_text()
    steps = re.findall(r'alt="(sample [^"]*)"( hidden)?', page)
    assert steps == [(f"sample {i} of 3 (left: truth)", "" if i == 2 else " hidden") for i in (1, 2, 3)]
    assert "50.0% intervals of the samples contain" in page and "Mean and deviation" in page
    assert "50.0% intervals of the samples contain" in (said := capsys.readouterr().out)
    # The background of 0, which clipped samples hold too easily, does not count where no mask of a head tells it.
    assert "of the truth strictly between 0 and 1" in said
    assert metrics["samples"]["coverage_of"] == "the truth strictly between 0 and 1"
    ((samples, truth), counted) = seen[0]
    np.testing.assert_array_equal(counted["mask"], (arrays["truth"] > 0) & (arrays["truth"] < 1))
    within = (samples.min(0) <= truth) & (truth <= samples.max(0))
    assert held["found"] == pytest.approx(within[truth == np.float32(0.7)].mean(), abs=1e-6)
    assert held["found"] < within.mean() - 0.05


def test_samples_of_black_and_white_have_no_coverage(folder, tmp_path, capsys):
    np.save(folder / "binary.npy", np.tri(16, dtype=np.float32))
    _run(folder, tmp_path / "many", "--samples", "3", image="binary.npy")
    metrics = json.loads((tmp_path / "many" / "metrics.json").read_text())
    assert metrics["samples"]["coverage"] == [] and "intervals of the samples" not in capsys.readouterr().out
    with Image.open(tmp_path / "many" / "deviation.png") as picture:
        assert min(picture.size) > 100


def test_images_from_the_prior_alone(folder, tmp_path):
    flags = ["--weights", str(folder / "w.safetensors"), "--generate", "2", "--generate-levels", "3"]
    main([*flags, "--workdir", str(tmp_path)])
    with np.load(tmp_path / "generated.npz") as file:
        images = file["images"]
    assert images.shape == (2, 16, 16, 1) and np.isfinite(images).all() and np.abs(images[0] - images[1]).max() > 1e-3
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"generated_00.png", "generated_01.png", "generated.npz", "config.json", "results.json"}


def test_generated_pictures_are_those_of_the_settings_beside_them(folder, tmp_path, monkeypatch, capsys):
    """An interrupted run over an earlier one leaves no picture of the earlier seed."""
    flags = ["--weights", str(folder / "w.safetensors"), "--generate-levels", "2", "--quiet"]
    main([*flags, "--generate", "3", "--workdir", str(tmp_path / "a")])
    main([*flags, "--generate", "1", "--seed", "1", "--workdir", str(tmp_path / "b")])
    (tmp_path / "a" / "generated_07.png").write_bytes(b"of somebody else")
    made, real = [], generate.generate

    def stopped(*args, **kwargs):
        made.append(args)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(generate, "generate", stopped)
    with pytest.raises(SystemExit) as stop:
        main([*flags, "--generate", "3", "--seed", "1", "--workdir", str(tmp_path / "a")])
    assert stop.value.code == 130 and "1 of 3 images are in" in capsys.readouterr().err
    pictures = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert pictures == ["generated_00.png", "generated_07.png"]
    for name in ("generated_00.png", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    made[:] = [()]  # the next call is interrupted at once
    with pytest.raises(SystemExit):
        main([*flags, "--generate", "3", "--seed", "2", "--workdir", str(tmp_path / "a")])
    assert "nothing was written" in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if name != "results.json")


@pytest.mark.parametrize("good", [0, 1])
def test_a_generated_image_that_is_not_finite_is_refused(folder, tmp_path, monkeypatch, capsys, good):
    """What was drawn before it is kept."""
    values = iter([0.5] * good + [np.nan])
    monkeypatch.setattr(generate, "generate", lambda *_, **__: np.full((16, 16, 1), next(values)))
    flags = ["--weights", folder / "w.safetensors", "--generate", "2", "--quiet", "--workdir", tmp_path / "out"]
    assert f"w.safetensors: image {good} is not finite" in refused(main, flags, capsys)
    assert len(list((tmp_path / "out").glob("generated_*.png"))) == good


UNUSED = {
    "samples of no measurement": (["--generate", "2", "--samples", "4"], "--samples: --generate draws images"),
    "formats": (["--generate", "2", "--save-as", "png"], "--save-as: --generate draws images"),
    "a scan": (["--generate", "2", "--measurement.path", "scan.npz"], "--measurement.path scan.npz: --generate"),
    "weights of a measurement": (["--generate", "2", "--weighted"], "--weighted: --generate draws images"),
    "another solver": (["--generate", "2", "--solver", "dps"], "--solver dps: --generate draws"),
    "steps of the solver": (["--generate", "2", "--solver.levels", "7"], "steps of its own (--generate-levels)"),
    "a geometry alone": (["--measurement.geometry", "g.json"], "name that by --measurement.path"),
    "chains of samples": (["--samples", "4", "--solver.average", "2"], "--solver.average 2: --samples are single"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_what_a_run_has_no_use_for_is_refused(folder, tmp_path, capsys, case):
    flags, expected = UNUSED[case]
    argv = ["--weights", folder / "w.safetensors", "--image.path", folder / "images.npy", "--image.index", "0"]
    argv += ["--scan.protocol", "paper", "--workdir", tmp_path / "out", "--quiet", "--dry-run"]
    assert expected in refused(main, [*argv, *flags], capsys)


def _truncated(folder, tmp_path):
    (tmp_path / "w.safetensors").write_bytes((folder / "w.safetensors").read_bytes()[:-50])
    return ["--weights", tmp_path / "w.safetensors"]


def _other_window(folder, tmp_path):
    return ["--weights", write_weights(tmp_path / "w.safetensors", window=HOUNSFIELD)]


def _spaced(*spacing):
    def make(folder, tmp_path):
        np.savez(tmp_path / "v.npz", volume=np.full((1, 16, 16), 40, np.int16), spacing=np.asarray(spacing))
        return ["--image.path", tmp_path / "v.npz", "--scan.protocol", "honest", *_other_window(folder, tmp_path)]

    return make


def _colour(folder, tmp_path):
    np.save(tmp_path / "colour.npy", np.full((1, 16, 16, 3), 0.5, np.float32))
    return ["--image.path", tmp_path / "colour.npy"]


def _with_nan(folder, tmp_path):
    image = np.full((16, 16), 0.5, np.float32)
    image[1, 2] = np.nan
    np.save(tmp_path / "nan.npy", image)
    return ["--image.path", tmp_path / "nan.npy"]


def _small(folder, tmp_path):
    np.save(tmp_path / "small.npy", np.full((8, 8), 0.5, np.float32))
    return ["--image.path", tmp_path / "small.npy", "--new-frame"]


MISTAKES = {
    "missing weights": (lambda f, t: ["--weights", t / "no.safetensors"], "no.safetensors: no such weights file"),
    "truncated weights": (_truncated, "not a readable safetensors file"),
    "no image": (lambda f, t: ["--image.path", t / "no.npy"], "no.npy: no such file or folder"),
    "index": (
        lambda f, t: ["--image.index", "2"],
        "there is no image 2 of 2, counted from 0 to 1: choose another by --image.index",
    ),
    "negative index": (lambda f, t: ["--image.index", "-1"], "there is no image -1 of 2"),
    "other size": (lambda f, t: ["--image.path", f / "wide.npy"], "pass --new-frame"),
    "too small": (_small, "at least 11 x 11 are needed"),
    "NaN": (_with_nan, "is nan at index (1, 2)"),
    "window of the image": (lambda f, t: ["--image.path", f / "volume.npz"], "trained with the window"),
    "window of the weights": (_other_window, "the window -1000 to 1000 HU, but the image has 0 to 1"),
    "channels": (_colour, "trained on images of 1 channels, not 3; add --image.grey"),
    "flat pixels": (_spaced(1.0, 1.0, 1000.0), "v.npz: its pixels are 1 mm high and 1000 mm wide"),
    "tiny pixels": (_spaced(1.0, 1e-30, 1e-30), "v.npz: the pixel size is 1e-30"),
    "no pixel size": (lambda f, t: ["--scan.protocol", "honest"], "give --scan.pixel-mm"),
    "DICOM without DICOM": (lambda f, t: ["--save-as", "dicom"], "images.npy: is not DICOM, and"),
    "NIfTI without spacing": (lambda f, t: ["--save-as", "png", "nifti"], "--save-as nifti: "),
    "unknown format": (lambda f, t: ["--save-as", "dcm"], "'dicom', 'nifti'"),
    "unknown field": (lambda f, t: ["--solver.levls", "3"], "perhaps --solver.levels"),
    "unknown solver": (lambda f, t: ["--solver", "ddps"], "choose one of dds, dps"),
    "unknown protocol": (lambda f, t: ["--scan.protocol", "papers"], "'honest', 'paper'"),
    "no views": (lambda f, t: ["--scan.views", "0"], "views is 0"),
    "no levels": (lambda f, t: ["--solver.levels", "0"], "solver.levels is 0"),
    "ladder upside down": (lambda f, t: ["--solver.sigma-min", "5"], "sigma_min"),
    "a setting of the solver": (lambda f, t: ["--solver.consistency", "-1"], "consistency"),
    "TV": (lambda f, t: ["--tv.weight", "-1"], "weight is -1"),
    "patches per call": (lambda f, t: ["--patch-batch", "-3"], "patch_batch is -3"),
    "tilings": (lambda f, t: ["--tilings", "999"], "tilings is 999"),
    "samples": (lambda f, t: ["--samples", "1"], "samples is 1: a deviation needs at least 2"),
    "workdir without a name": (lambda f, t: ["--workdir"], "--workdir: expected one argument"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_give_one_line_and_leave_earlier_results(results, folder, tmp_path, capsys, case):
    make, expected = MISTAKES[case]
    before = {path: path.read_bytes() for path in results[0].iterdir()}
    message = refused(main, _arguments(folder, results[0], *make(folder, tmp_path)), capsys)
    assert expected in message, message
    assert {path: path.read_bytes() for path in results[0].iterdir()} == before


def test_outside_of_a_checkout_the_files_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "name the file with --weights" in refused(main, [], capsys)
    assert not list(tmp_path.iterdir())


def test_help_shows_the_sections(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help-all"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for flag in ("--weights", "--image.index", "--scan.protocol", "--solver.levels", "--tv.weight", "--new-frame"):
        assert flag in text
    assert "--workdir" in text and "held-out slice" in text


def test_the_program_itself(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "sample.py"), "--weights", "nothing.safetensors"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
