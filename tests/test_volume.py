"""Volumes: slices equal their single runs, a kill loses nothing, and a bad slice takes no other with it."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import jax
import nibabel
import numpy as np
import pydicom
import pytest
from medical import write_nifti, write_series, write_slice
from PIL import Image
from tiny import refused, write_weights

from padis_jax import files
from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD, PLAIN, read_images
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.operators import ParallelBeam
from padis_jax.runs import solve, solve_slices, volume_memory
from padis_jax.runs.volume_results import summary
from padis_jax.solvers.presets import tv_preset

QUICK = "--scan.views 5 --scan.bins 24 --tv.weight 0.01 --tv.iterations 4 --solver.levels 2".split()
SHAPE = (15, 17)  # which the patch does not divide
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (5, *SHAPE)).astype(np.int16)
FORMATS = ("dicom", "nifti", "npz", "hdf5", "tiff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A series of five slices and weights."""
    folder = tmp_path_factory.mktemp("volume")
    write_series(folder / "ct", VOLUME)
    write_weights(folder / "w.safetensors", image_shape=SHAPE, window=HOUNSFIELD)
    return folder


def words(folder, out, *more, path=None):
    given = ["--weights", folder / "w.safetensors", "--image.path", path or folder / "ct", "--workdir", out, *QUICK]
    return [str(a) for a in (*given, *more)]


def arrays(out):
    with np.load(out / "reconstruction.npz") as file:
        return {name: file[name] for name in file.files}


def manifest(out):
    return {r["item"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def batched(folder, tmp_path_factory):
    """Slices 1 to 3, two at a time, in every format."""
    out = tmp_path_factory.mktemp("batched") / "out"
    main(words(folder, out, "--image.index", "1:4", "--batch", "2", "--quiet", "--save-as", *FORMATS))
    return out


@pytest.fixture(scope="module")
def single(folder, tmp_path_factory):
    """The single run of slice 2."""
    out = tmp_path_factory.mktemp("single") / "out"
    main(words(folder, out, "--image.index", "2", "--quiet"))
    return arrays(out), json.loads((out / "metrics.json").read_text())


def test_a_slice_is_its_single_run(folder, batched, single, tmp_path):
    """Bit for bit one by one; in batches the solver's image differs by rounding (here below 0.02 HU of 2000)."""
    out = tmp_path / "out"
    main(words(folder, out, "--image.index", "1:4", "--batch", "1", "--quiet"))
    alone, scores = single
    for name in ("truth", "FBP", "TV", "PnP-ADMM"):
        np.testing.assert_array_equal(arrays(out)[name][1], alone[name], err_msg=name)
        limit = 0.02 if name == "PnP-ADMM" else 0
        np.testing.assert_allclose(arrays(batched)[name], arrays(out)[name], rtol=0, atol=limit, err_msg=name)
    assert np.ptp(alone["PnP-ADMM"]) > 100
    rows = json.loads((out / "metrics.json").read_text())["slices"][1]["rows"]
    for row, expected in zip(rows, scores["rows"], strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


def test_one_volume_in_each_format_lies_where_the_source_lay(folder, batched):
    found = arrays(batched)
    expected = found["PnP-ADMM"][..., 0]
    assert expected.shape == (3, *SHAPE) and found["slices"].tolist() == [1, 2, 3]
    series = [pydicom.dcmread(f) for f in sorted((batched / "pnp_admm").iterdir())]
    assert [float(d.ImagePositionPatient[2]) for d in series] == [1.5, 3.0, 4.5]
    assert len({d.SeriesInstanceUID for d in series}) == 1 and series[0].PatientID == "7"
    for data, plane in zip(series, expected, strict=True):
        slope = float(data.RescaleSlope)
        np.testing.assert_allclose(data.pixel_array * slope, plane, atol=0.51 * slope)
    image = nibabel.load(batched / "pnp_admm.nii.gz")
    np.testing.assert_allclose(np.asarray(image.dataobj).T, expected, atol=1e-3)
    np.testing.assert_allclose(image.affine[:3, 3], (-10, -20, 1.5))
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), (0.8, 0.9, 1.5))
    with np.load(batched / "pnp_admm.npz") as file, h5py.File(batched / "pnp_admm.h5", "r") as other:
        np.testing.assert_allclose(file["volume"], expected, atol=1e-3)
        np.testing.assert_allclose(other["volume"], expected, atol=1e-3)
        np.testing.assert_allclose(file["affine"], image.affine)
    with Image.open(batched / "pnp_admm.tif") as pages:
        assert pages.n_frames == 3


def test_scores_of_each_slice_and_their_spread(folder, batched):
    metrics = json.loads((batched / "metrics.json").read_text())
    assert not {"measurement_sha256", "output_sha256", "line_sha256"} & set(metrics["slices"][0])
    assert [s["slice"] for s in metrics["slices"]] == [1, 2, 3] and metrics["choice"] == "--image.index 1:4"
    values = [s["rows"][-1]["psnr"] for s in metrics["slices"]]
    row = metrics["rows"][-1]
    assert row["method"] == "PnP-ADMM" and row["slices"] == 3
    assert row["psnr"]["mean"] == pytest.approx(np.mean(values)) and row["psnr"]["least"] == min(values)
    assert row["psnr"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    page = (batched / "report.html").read_text()
    assert len(re.findall(r'alt="image \d: truth, then PnP-ADMM"', page)) == 3 and 'type="range"' in page
    assert "Every slice, PnP-ADMM" in page and "±" in page and "Planes through the centre" in page
    one, other = {"method": "a", "seconds": 1.0, "psnr": 30.0}, {"method": "a", "seconds": 1.0, "psnr": None}
    assert summary([{"rows": [one]}, {"rows": [other]}])[0]["psnr"]["slices"] == 1


def test_a_rerun_keeps_what_is_done_and_adds_what_is_asked_for(folder, batched, capsys, monkeypatch):
    before = {p.name: p.stat().st_mtime_ns for p in (batched / "slices").iterdir()}
    (batched / "slices" / "00002.npz").write_bytes(b"damaged")
    old = arrays(batched)["PnP-ADMM"]
    solved = []
    real = solve_slices.run_batch
    monkeypatch.setattr(
        solve_slices, "run_batch", lambda c, cases, n, **o: solved.append(list(n)) or real(c, cases, n, **o)
    )
    more = ["--save-as", "npz", "--display", "lung", "-160:240"]  # which change no slice
    main(words(folder, batched, "--image.index", "1:5", "--batch", "2", *more))
    assert "Slices in the display lung: -1350 to 150 HU." in (batched / "report.html").read_text()
    assert solved == [[2, 4]] and "2 slices kept from before" in capsys.readouterr().out
    after = {p.name: p.stat().st_mtime_ns for p in (batched / "slices").iterdir()}
    assert {n for n in before if before[n] == after[n]} == {"00001.npz", "00003.npz"} and len(after) == 4
    np.testing.assert_allclose(arrays(batched)["PnP-ADMM"][:3], old, atol=0.02)
    message = refused(main, words(folder, batched, "--image.index", "1:5", "--seed", "3", "--quiet"), capsys)
    assert "has results of other settings (experiment.seed); choose another --workdir" in message


def test_further_slices_compile_nothing(folder, batched, single, tmp_path, caplog, monkeypatch):
    """After one batch, and after one slice: other slices, seeds and measurements are arguments of one program."""
    sizes, real = [], solve.reconstruct_batch
    monkeypatch.setattr(
        solve, "reconstruct_batch", lambda keys, *a, **o: sizes.append(len(keys)) or real(keys, *a, **o)
    )
    for batch in ("2", "1"):
        with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
            given = ["--image.index", "all", "--batch", batch, "--quiet", "--seed", "1"]
            main(words(folder, tmp_path / batch, *given))
        assert not [line for line in caplog.messages if line.startswith("Compiling")]
        assert [line for line in caplog.messages if line.startswith("Finished tracing")]  # such lines do come
    assert sizes == [2, 2, 2]  # the last batch is filled up


@pytest.mark.slow
def test_samples_give_a_volume_of_deviations(folder, tmp_path):
    out = tmp_path / "out"
    more = ["--samples", "2", "--solver.cg-steps", "2", "--save-as", "nifti", "npz", "--quiet"]
    main(words(folder, out, "--image.index", "0,2,4", *more))
    found = arrays(out)
    assert found["deviation"].shape == (3, *SHAPE, 1) and found["deviation"].max() > 0
    image = nibabel.load(out / "dds_deviation.nii.gz")
    np.testing.assert_allclose(np.asarray(image.dataobj).T, found["deviation"][..., 0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), (0.8, 0.9, 3.0))  # every second slice
    assert (out / "montage_deviation.png").exists()
    main(words(folder, tmp_path / "one", "--image.index", "2", *more))
    with np.load(tmp_path / "one" / "reconstruction.npz") as alone:
        np.testing.assert_array_equal(found["deviation"][1], alone["deviation"])
        np.testing.assert_array_equal(found["DDS, mean of 2"][1], alone["DDS, mean of 2"])


@pytest.mark.slow
def test_masks_that_are_drawn_for_each_slice_are_those_of_single_runs(tmp_path):
    write_weights(tmp_path / "w.safetensors", image_shape=SHAPE)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, *SHAPE), np.float32))
    more = "--problem inpaint_box --quiet --solver.levels 2 --tv.iterations 3 --seed 2".split()
    given = ["--weights", tmp_path / "w.safetensors", "--image.path", tmp_path / "x.npy", *more]
    main([str(a) for a in (*given, "--image.index", "all", "--workdir", tmp_path / "all")])
    main([str(a) for a in (*given, "--image.index", "1", "--workdir", tmp_path / "one")])
    np.testing.assert_array_equal(arrays(tmp_path / "all")["DDS"][1], arrays(tmp_path / "one")["DDS"])


def _scan(folder, rows):
    """Weights in plain numbers, and a scan [views, rows, bins] of discs that grow, the last two rows of air."""
    write_weights(folder / "w.safetensors", image_shape=SHAPE)
    geometry = ScanGeometry("parallel", tuple(np.arange(5) * 36.0), "degrees", 24, 0.5)
    operator = ParallelBeam(image_shape=SHAPE, angles=geometry.radians, detector_count=24)
    y, x = np.mgrid[-1:1:15j, -1:1:17j]
    lines = [0.02 * np.asarray(operator((np.hypot(x, y) < 0.3 + 0.1 * i).astype(np.float32))) for i in range(rows)]
    scan = np.stack(lines, 1) + 1e-3 * np.random.default_rng(0).standard_normal((5, rows, 24))
    scan[:, -2] -= lines[-2]
    scan[:, -1] = 0
    np.savez(folder / "scan.npz", sinogram=scan.astype(np.float32))
    about = {
        "beam": "parallel",
        "angles": list(geometry.angles),
        "angle_unit": "degrees",
        "bins": 24,
        "spacing_mm": 0.5,
    }
    (folder / "scan.json").write_text(json.dumps(about))
    return ["--measurement.path", folder / "scan.npz", "--measurement.geometry", folder / "scan.json"]


def test_the_rows_of_a_measured_scan_are_a_volume(tmp_path, capsys):
    """Rows of air are reconstructed too; a row equals its single run; all rows have one scale, which is said."""
    given = [
        *_scan(tmp_path, 5),
        "--weights",
        tmp_path / "w.safetensors",
        "--tv.iterations",
        "4",
        "--solver.levels",
        "2",
    ]
    more = ["--workdir", tmp_path / "out", "--save-as", "dicom", "nifti", "--batch", "1"]
    main([str(a) for a in (*given, "--measurement.row", "all", *more)])
    said = capsys.readouterr().err
    assert "rows are taken to be 0.5 mm apart" in said
    scale = re.search(r"image value 1 is (\S+) per mm in all rows", said)[1]
    found = arrays(tmp_path / "out")
    assert found["PnP-ADMM"].shape == (5, *SHAPE, 1) and "truth" not in found
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["slices"][3]["attenuation_per_mm"] == [0, pytest.approx(float(scale), rel=1e-5)]
    places = [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in sorted((tmp_path / "out/pnp_admm").iterdir())]
    np.testing.assert_allclose(places, 0.5 * np.arange(5))
    exact = str(metrics["slices"][3]["attenuation_per_mm"][1])
    alone = ["--measurement.row", "3", "--measurement.attenuation", exact, "--workdir", tmp_path / "one", "--quiet"]
    main([str(a) for a in (*given, *alone)])
    np.testing.assert_array_equal(arrays(tmp_path / "one")["PnP-ADMM"], found["PnP-ADMM"][3])
    assert json.loads((tmp_path / "one" / "config.json").read_text())["experiment"]["image"]["index"] == 3
    for name in ("one", "out"):
        saved = json.loads((tmp_path / name / "config.json").read_text())["experiment"]["tv"]
        assert saved == {"weight": tv_preset("counts").weight, "iterations": 4}


def test_a_bad_row_fails_alone_and_the_rest_is_kept(tmp_path, capsys):
    given = [
        *_scan(tmp_path, 4),
        "--weights",
        tmp_path / "w.safetensors",
        "--tv.iterations",
        "4",
        "--solver.levels",
        "2",
    ]
    with np.load(tmp_path / "scan.npz") as file:
        scan = file["sinogram"]
    scan[2, 1, 3] = np.nan
    np.savez(tmp_path / "scan.npz", sinogram=scan)
    given += ["--workdir", tmp_path / "out", "--quiet", "--measurement.attenuation", "0.02"]
    message = refused(main, [*given, "--measurement.row", "all"], capsys)
    assert "1 of 4 slices failed, 1; the first:" in message and "row 1: " in message and "NaN" in message
    assert "leave it out: --measurement.row 0,2:4" in message
    assert sorted(p.name for p in (tmp_path / "out" / "slices").iterdir()) == ["00000.npz", "00002.npz", "00003.npz"]
    main([str(a) for a in (*given, "--measurement.row", "0,2:4")])  # nothing is computed again
    assert arrays(tmp_path / "out")["slices"].tolist() == [0, 2, 3]


@pytest.mark.slow
def test_slices_of_air(folder, tmp_path, capsys):
    """A constant slice has a residual or none, and no score is NaN."""
    values = VOLUME[:3].copy()
    values[1] = -1000
    write_nifti(tmp_path / "x.nii", values)
    for protocol in ("paper", "honest"):
        out = tmp_path / protocol
        main(words(folder, out, "--image.index", "all", "--scan.protocol", protocol, "--json", path=tmp_path / "x.nii"))
        said = json.loads(capsys.readouterr().out)
        assert len(said["slices"]) == 3 and said["done"] == 3
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["rows"][-1]["psnr"]["least"] > 0 and "null" not in json.dumps(metrics["rows"])
        assert np.isfinite(arrays(out)["PnP-ADMM"]).all() and arrays(out)["PnP-ADMM"].shape == (3, *SHAPE, 1)


def test_slices_that_make_no_volume_are_refused_by_name(folder, tmp_path, capsys):
    for name, spacing in (("a", (1.5, 0.9, 0.8)), ("b", (3.0, 0.9, 0.8))):
        (tmp_path / "two").mkdir(exist_ok=True)
        write_nifti(tmp_path / "two" / f"{name}.nii", VOLUME, spacing=spacing)
    message = refused(main, words(folder, tmp_path / "o", "--image.index", "3:7", path=tmp_path / "two"), capsys)
    assert "b.nii: its spacing (3.0" in message and "a volume has one: name the files of one" in message
    write_nifti(tmp_path / "two" / "b.nii", VOLUME)
    message = refused(main, words(folder, tmp_path / "o", "--image.index", "3:7", path=tmp_path / "two"), capsys)
    assert "reaches over 2 volumes (two/a.nii, two/b.nii)" in message
    for index, z in enumerate((0.0, 1.5, 4.5)):
        write_slice(tmp_path / "gap" / f"{index}.dcm", VOLUME[index], z=z)
    given = words(
        folder, tmp_path / "o", "--image.index", "all", "--save-as", "nifti", "--quiet", path=tmp_path / "gap"
    )
    assert "1.dcm and 2.dcm are 3 mm apart, others 1.5 mm: NIfTI" in refused(main, given, capsys)
    for choice, what in (("3:9", "reaches beyond the 5 images"), ("4:4", "holds none"), ("0:5:0", "step 0")):
        message = refused(main, words(folder, tmp_path / "o", "--image.index", choice), capsys)
        assert f"--image.index '{choice}'" in message and what in message
    assert not (tmp_path / "o").exists()
    given = words(folder, tmp_path / "o", "--image.index", "1:3", "--measurement.path", "x.npz")
    assert "measured scans have rows" in refused(main, given, capsys)
    given = words(folder, tmp_path / "o", "--measurement.row", "1:3")
    assert "name it by --measurement.path" in refused(main, given, capsys)


def test_a_plan_says_what_the_volume_takes(folder, tmp_path, capsys, caplog):
    """Nothing is compiled for it."""
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        main(words(folder, tmp_path / "o", "--image.index", "1:", "--dry-run", "--json", "--batch", "3"))
    assert not [line for line in caplog.messages if line.startswith("Compiling")]
    plan = json.loads(capsys.readouterr().out)
    assert plan["slices"] == 4 and plan["at_once"] == 3 and plan["shape"] == [4, *SHAPE, 1]
    assert plan["evaluations"] == 4 * 2 and plan["bytes"] > 0 and plan["bytes_of_volumes"] == 4 * 4 * 15 * 17 * 12
    assert not (tmp_path / "o").exists()
    main(words(folder, tmp_path / "o", "--image.index", "1:", "--dry-run"))
    assert "4 slices of" in capsys.readouterr().out


def test_a_batch_that_memory_cannot_hold_is_made_smaller(folder):
    from padis_jax.runs.config import Experiment
    from padis_jax.runs.defaults import plan_of
    from padis_jax.solvers.presets import kind_of
    from padis_jax.weights import load_weights

    weights, config = load_weights(folder / "w.safetensors"), Experiment(batch=8)
    plan = plan_of(config, kind_of("ct", counts=True))
    size = [
        solve_slices.batch_size(config, plan, weights, weights.frame, 20, 1, free=lambda room=room: room)
        for room in (10**12, 2 * 10**6, 10)
    ]
    assert size[0] == 8 > size[1] > 1 == size[2]
    fits = solve_slices.estimate_of(config, plan, weights, weights.frame, 1, size[1]).bytes
    assert fits <= 1.05e6 < solve_slices.estimate_of(config, plan, weights, weights.frame, 1, size[1] + 1).bytes * 1.05


def test_a_volume_that_memory_cannot_hold_is_refused_before_the_work(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(volume_memory, "available", lambda: 4 * 5 * 15 * 17 * 12 - 1)
    message = refused(main, words(folder, tmp_path / "o", "--image.index", "all", "--quiet"), capsys)
    assert "writing 5 slices takes about 6.12e-05 GB of memory, and 6.12e-05 GB are free" in message
    assert "choose fewer with --image.index" in message and not (tmp_path / "o").exists()


def test_a_full_disk_loses_nothing(folder, tmp_path, capsys, monkeypatch):
    out, real, count = tmp_path / "out", files.os.replace, []

    def full(source, target):
        if Path(target).parent.name == "slices":
            count.append(target)
            if len(count) == 3:
                raise OSError(28, "No space left on device")
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        message = refused(main, words(folder, out, "--image.index", "all", "--batch", "1", "--quiet"), capsys)
    assert "00002.npz: could not be written (No space left on device)" in message
    assert len(manifest(out)) == 2 and not list(out.rglob("*.tmp"))
    main(words(folder, out, "--image.index", "all", "--batch", "1"))
    assert "2 slices kept from before" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_finished(folder, tmp_path, capsys, monkeypatch):
    out, calls, real = tmp_path / "out", [], solve_slices.rows_of

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(solve_slices, "rows_of", interrupted)
        with pytest.raises(SystemExit) as stopped:
            main(words(folder, out, "--image.index", "all", "--batch", "1"))
    assert stopped.value.code == 130
    assert f"2 slices are finished and kept in {out / 'slices'}. Rerun the same" in capsys.readouterr().err
    assert len(manifest(out)) == 2


@pytest.mark.slow
def test_a_killed_volume_is_finished_by_the_same_command(folder, tmp_path):
    """SIGKILL as soon as a slice is there: the second start takes it, and the volume is that of an undisturbed run."""
    command = [sys.executable, "-c", "from padis_jax.cli.sample import main; main()"]
    given = ["--image.index", "all", "--batch", "1", "--no-lock", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    out = tmp_path / "killed"
    run = subprocess.Popen([*command, *words(folder, out, *given)], env=environment)
    deadline = time.monotonic() + 120
    while not (out / "manifest.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert 1 <= len(manifest(out)) < 5
    kept = {p.name: p.stat().st_mtime_ns for p in (out / "slices").glob("0*.npz")}
    main(words(folder, out, *given))
    main(words(folder, tmp_path / "whole", *given))
    for name, stack in arrays(tmp_path / "whole").items():
        np.testing.assert_array_equal(arrays(out)[name], stack)
    assert all(
        (out / "slices" / n).stat().st_mtime_ns == t for n, t in kept.items() if f"slices/{n[:-4]}" in manifest(out)
    )


def test_slices_that_were_trained_on_are_named(tmp_path, capsys):
    from padis_jax.weights import load_weights, save_weights

    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((12, *SHAPE), np.float32))
    write_weights(tmp_path / "w.safetensors", image_shape=SHAPE)
    weights = load_weights(tmp_path / "w.safetensors")
    data = {"path": str(tmp_path / "images.npy"), "test": [4], "validation": [], "test_gap": 1}
    provenance = {"config": {"data": data}, "steps": 1}
    save_weights(tmp_path / "w.safetensors", weights.params, weights.network, weights.frame, PLAIN, provenance)
    given = words(tmp_path, tmp_path / "o", "--scan.protocol", "paper", path=tmp_path / "images.npy")
    main([*given, "--image.index", "2:7", "--dry-run"])
    assert "was trained on 2 of 5 images (2,6), so scores there say little of others" in capsys.readouterr().err
    main([*given, "--image.index", "9", "--dry-run"])
    assert "was trained on this image (9)" in capsys.readouterr().err
    main([*given, "--image.index", "4", "--dry-run"])
    assert "trained on" not in capsys.readouterr().err
    assert len(read_images(tmp_path / "images.npy").names) == 12
