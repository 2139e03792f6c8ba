"""Samples of volumes that are solved as a whole: one after the other, kept, their mean and deviation written."""

import json

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from tiny import write_weights

from padis_jax.cli import whole
from padis_jax.cli.sample import main
from padis_jax.files import write_json
from padis_jax.images import HOUNSFIELD, read_images
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.simulate import Measurement
from padis_jax.metrics import coverage
from padis_jax.problems.registry import parallel_scan
from padis_jax.runs.job import Done
from padis_jax.runs.score import held_lines, score_samples
from padis_jax.runs.solve_rows import samples_of, steps_of
from padis_jax.runs.volume_case import VolumeCase
from padis_jax.solvers.presets import preset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven slices of a ball in HU, weights in HU, the geometry of a cone beam."""
    folder = tmp_path_factory.mktemp("samples")
    write_weights(folder / "hu.safetensors", window=HOUNSFIELD)
    z, y, x = np.mgrid[-1:1:7j, -1:1:16j, -1:1:16j]
    ball = 0.2 + 0.5 * (np.hypot(np.hypot(x, y), z) < 0.85)
    np.savez(folder / "ct.npz", volume=(ball * 2000 - 1000).astype(np.int16), spacing=np.asarray([1.5, 1.0, 1.0]))
    turn = tuple((np.arange(8) * 45.0).tolist())
    write_json(folder / "g.json", ConeScan("cone", 14, 24, turn, "degrees", 1.5, 1.5, 0.0, 0.0, 60.0, 30.0))
    return folder


def words(folder, out, *more):
    given = ["--weights", folder / "hu.safetensors", "--image.path", folder / "ct.npz", "--image.index", "2:5"]
    given += ["--tv.iterations", "5", "--solver.levels", "2", "--solver.cg-steps", "1", "--samples", "2"]
    return [str(word) for word in (*given, "--workdir", out, *more)]


def arrays(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


JOINT = ["--volume.joint", "--scan.views", "6", "--scan.bins", "24", "--save-as", "nifti", "npz"]


def test_slices_in_one_data_step(folder, tmp_path, capsys):
    """Each sample is an item, of which mean and deviation are made, in every format; one that is gone is redone."""
    argv = words(folder, out := tmp_path / "out", *JOINT)
    main(argv)
    said = capsys.readouterr().out
    about = json.loads((out / "metrics.json").read_text())
    assert [row["method"] for row in about["rows"]] == ["FBP", "TV", "DDS, one sample", "DDS, mean of 2"]
    assert [row["evaluations"] for row in about["rows"]] == [0, 0, 2, 4] and about["rows"][3]["psnr"] > 0
    one, two = (
        arrays(out / "rows" / f"dds__{name}.npz")[f"DDS, {name.replace('_', ' ')}"]
        for name in ("one_sample", "sample_2")
    )
    found, scale = arrays(out / "reconstruction.npz"), 2000
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_allclose((found["DDS, mean of 2"][..., 0] + 1000) / scale, (one + two) / 2, atol=1e-5)
    np.testing.assert_allclose(found["deviation"][..., 0] / scale, np.abs(one - two) / np.sqrt(2), atol=1e-5)
    deviation = nibabel.load(out / "dds_deviation.nii.gz")
    assert deviation.shape == nibabel.load(out / "dds.nii.gz").shape == (16, 16, 3)
    assert deviation.get_fdata().max() == pytest.approx(found["deviation"].max(), rel=1e-3)
    assert (out / "dds_deviation.npz").exists() and (out / "montage_deviation.png").exists()
    assert about["samples"]["count"] == 2 and about["samples"]["mean_deviation"] == pytest.approx(
        found["deviation"].mean()
    )
    assert "33.3% intervals of the samples contain" in said and "33.3% intervals" in (out / "report.html").read_text()
    (out / "rows" / "dds__sample_2.npz").write_bytes(b"cut")
    main([*argv, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert (again["kept"], again["done"]) == (4, 1)
    np.testing.assert_array_equal(arrays(out / "rows" / "dds__sample_2.npz")["DDS, sample 2"], two)


@pytest.mark.slow
def test_a_cone_beam(folder, tmp_path):
    out = tmp_path / "out"
    main(words(folder, out, "--scan.geometry", folder / "g.json", "--quiet"))
    about, found = json.loads((out / "metrics.json").read_text()), arrays(out / "reconstruction.npz")
    assert about["rows"][-1]["method"] == "DDS, mean of 2" and len(about["samples"]["coverage"]) == 1
    assert found["deviation"].shape == (3, 16, 16, 1) and found["deviation"].max() > 0


def test_a_plan_counts_every_sample(folder, tmp_path, capsys):
    argv = words(folder, tmp_path / "out", *JOINT, "--dry-run", "--json")
    main(argv)
    two = json.loads(capsys.readouterr().out)
    main([*argv, "--samples", "6"])
    six = json.loads(capsys.readouterr().out)
    assert (two["evaluations"], six["evaluations"]) == (3 * 2 * 2, 3 * 2 * 6)
    assert two["bytes_of_solver"] == six["bytes_of_solver"]  # they run one after the other
    assert six["bytes_of_volumes"] - two["bytes_of_volumes"] == 4 * 4 * 4 * 3 * 16 * 16


def test_runs_that_are_alike_are_refused(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(words(folder, tmp_path / "out", *JOINT, "--solver", "pnp_admm"))
    assert "--solver pnp_admm: its runs differ in their tilings only" in capsys.readouterr().err


def test_a_mean_wants_all_of_its_samples(folder, tmp_path, capsys, monkeypatch):
    """One sample fails: the others are kept, and the error says which."""
    real = whole.rows_solver

    def solver(config, prior, names, workdir, **options):
        solve = real(config, prior, names, workdir, **options)

        def failing(numbers, items):
            if list(names)[numbers[0]] in ("DDS, one sample", "DDS, sample 2"):
                return [Done(reason="no luck")]
            return solve(numbers, items)

        return failing

    monkeypatch.setattr(whole, "rows_solver", solver)
    with pytest.raises(SystemExit):
        main(words(folder, out := tmp_path / "out", *JOINT))
    error = capsys.readouterr().err
    assert "DDS, one sample failed: no luck" in error
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["failed"] * 3 + ["done"] * 2  # in the order of their names
    assert "DDS, mean of 2 needs DDS, one sample, which there is not" in [line.get("reason") for line in lines]


def test_steps_and_moments():
    plan = preset("dds", "ct")
    experiment = type("Given", (), {"samples": 3, "auto": False})
    assert steps_of(experiment, ["FBP", "TV", "DDS, one sample", "DDS, mean of 3"], plan) == [
        "FBP", "TV", "DDS, one sample", "DDS, sample 2", "DDS, sample 3", "DDS, mean of 3",
    ]  # fmt: skip
    drawn = np.random.default_rng(0).random((3, 2, 4, 5)).astype(np.float32)
    lines = [{"residual_per_level": [0.1 * k], "rows": [{"evaluations": 7}]} for k in range(3)]
    found = samples_of(list(drawn), lines)
    np.testing.assert_allclose(found.mean, drawn.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, drawn.std(0, ddof=1), rtol=1e-5)
    assert found.evaluations == 21 and found.residual.shape == (3, 1)


def test_coverage_of_a_volume_is_over_all_its_voxels(folder):
    images = read_images(str(folder / "ct.npz"))
    truth = np.asarray(images.images[:])[..., 0]
    y = Measurement(jnp.asarray(truth), jnp.zeros(truth.shape), "paper")
    case = VolumeCase(lambda x: x, y, images.window, images, parallel_scan(4, 24), truth)
    drawn = np.clip(truth + 0.05 * np.random.default_rng(0).standard_normal((4, *truth.shape)), 0, 1)
    lines = [{"residual_per_level": [0.0], "rows": [{"evaluations": 1}]}] * 4
    about, held, where = score_samples(samples_of(list(drawn.astype(np.float32)), lines), case)
    inside = np.clip(truth, 0, 1) > 0.5  # the ball; head_mask fills it slice by slice
    expected = coverage(drawn.reshape(4, -1, 16), truth.reshape(-1, 16), mask=inside.reshape(-1, 16))
    assert [row.nominal for row in held] == [row.nominal for row in expected]
    assert abs(held[0].found - expected[0].found) < 0.1 and where == "the truth within the head"
    assert held_lines(about)[0].startswith("60.0% intervals of the samples contain")
