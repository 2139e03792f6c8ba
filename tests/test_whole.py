"""Volumes that are solved as a whole: cone beams of every geometry, rows that are kept, slices in one data step."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from tiny import NETWORK, random_params, refused, write_weights

from padis_jax.cli import whole
from padis_jax.cli.sample import main
from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.images import HOUNSFIELD, PLAIN, read_images
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.load import MeasurementConfig, open_scan
from padis_jax.measurements.simulate import Measurement
from padis_jax.measurements.simulate_cone import cone_measurement
from padis_jax.measurements.volume_load import open_measured_volume, read_measured_volume
from padis_jax.metrics import psnr, ssim
from padis_jax.patches import frame_for
from padis_jax.problems.registry import parallel_scan
from padis_jax.runs import solve_rows, volume_memory
from padis_jax.runs.case import image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.score import score
from padis_jax.runs.volume import open_volume
from padis_jax.runs.volume_case import VolumeCase
from padis_jax.runs.volume_config import VolumeConfig
from padis_jax.runs.whole import is_whole, open_whole
from padis_jax.solvers.tv import TV
from padis_jax.weights import Slab, load_weights, save_weights

SHAPE, VIEWS, DETECTOR = (12, 16, 16), 16, (14, 24)
TURN = tuple((np.arange(VIEWS) * 360 / VIEWS).tolist())
SCAN = ConeScan("cone", *DETECTOR, TURN, "degrees", 1.5, 1.5, 0.0, 0.0, 60.0, 30.0)
ATTENUATION = 0.02  # per mm, of image value 1
QUICK = "--tv.iterations 30 --tv.weight 0.05 --solver.levels 3".split()


def rtk():
    """RTK's file of SCAN: M of every view, whose (x, y, z) are our (x, z, -y)."""
    text = '<?xml version="1.0"?><!DOCTYPE RTKGEOMETRY><RTKThreeDCircularGeometry version="3">'
    text += "<SourceToDetectorDistance>90</SourceToDetectorDistance>"
    for c, s in zip(np.cos(np.radians(TURN)), np.sin(np.radians(TURN)), strict=True):
        matrix = [-90 * c, 0, 90 * s, 0, 0, -90, 0, 0, s, 0, c, -60]
        text += f"<Projection><Matrix>{' '.join(map(str, matrix))}</Matrix></Projection>"
    return text + "</RTKThreeDCircularGeometry>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ball with a hole, its projections, and the geometry in every format."""
    folder = tmp_path_factory.mktemp("cone")
    write_weights(folder / "w.safetensors")
    z, y, x = np.mgrid[-1:1:12j, -1:1:16j, -1:1:16j]
    ball = (np.hypot(np.hypot(x, y), z) < 0.85) & (np.hypot(np.hypot(x - 0.3, y), z - 0.2) > 0.2)
    truth = (0.7 * ball).astype(np.float32)
    lines = np.asarray(SCAN.operator(SHAPE, 1.0, 1.0)(truth)) * np.float32(ATTENUATION)
    np.save(folder / "truth.npy", truth)
    np.save(folder / "p.npy", lines)
    np.save(folder / "turned.npy", lines.transpose(1, 0, 2))
    bad = lines.copy()
    bad[3, 2, 1] = np.nan
    np.save(folder / "nan.npy", bad)
    write_json(folder / "g.json", SCAN)
    orbit = {"type": "cone", "DetectorRowCount": 14, "DetectorColCount": 24, "DetectorSpacingX": 1.5}
    orbit |= {"DetectorSpacingY": 1.5, "ProjectionAngles": np.radians(TURN).tolist()}
    write_json(folder / "astra.json", orbit | {"DistanceOriginSource": 60.0, "DistanceOriginDetector": 30.0})
    vectors = {"type": "cone_vec", "DetectorRowCount": 14, "DetectorColCount": 24, "Vectors": SCAN.placed.tolist()}
    write_json(folder / "vec.json", vectors)
    (folder / "rtk.xml").write_text(rtk())
    write_json(folder / "fan.json", ScanGeometry("fan", TURN, "degrees", 24, 1.5, 0.0, 60.0, 30.0))
    write_weights(folder / "hu.safetensors", window=HOUNSFIELD)
    values = (truth * 2000 - 1000).astype(np.int16)
    np.savez(folder / "ct.npz", volume=values, spacing=np.asarray([1.5, 1.0, 1.0]))
    np.save(folder / "unspaced.npy", truth)
    return folder


def words(folder, *more, scan="p.npy", geometry="g.json"):
    given = ["--weights", folder / "w.safetensors", "--measurement.path", folder / scan]
    given += ["--measurement.geometry", folder / geometry, "--measurement.attenuation", ATTENUATION, *QUICK]
    return [str(a) for a in (*given, *more)]


def placed(*shape):
    return ["--volume.shape", *map(str, shape), "--measurement.pixel-mm", "1"]


GEOMETRIES = {"g.json": [], "astra.json": [], "vec.json": [], "rtk.xml": ["--measurement.detector-mm", "1.5", "1.5"]}


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """The run with our own geometry."""
    out = tmp_path_factory.mktemp("done") / "out"
    formats = ["--save-as", "nifti", "tiff", "hdf5"]
    main(words(folder, *placed(*SHAPE), "--workdir", out, "--volume.slice-mm", "1", *formats, "--quiet"))
    return out


def arrays(out):
    with np.load(out / "reconstruction.npz") as file:
        return {name: file[name] for name in file.files}


def metrics(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.slow
def test_one_volume_comes_out(done, folder):
    found, about, truth = arrays(done), metrics(done), np.load(folder / "truth.npy")
    assert [row["method"] for row in about["rows"]] == ["FDK", "TV", "PnP-ADMM"]
    residuals = [row["residual"] for row in about["rows"]]
    assert residuals[0] > residuals[1] and "psnr" not in about["rows"][0] and about["rows"][2]["evaluations"] == 3
    errors = [np.linalg.norm(found[name][..., 0] - truth) / np.linalg.norm(truth) for name in ("FDK", "TV", "PnP-ADMM")]
    assert errors[0] < 0.5 and errors[1] < 0.15 and errors[2] < 0.15  # the right way up, in the unit of the window
    assert found["PnP-ADMM"].shape == (*SHAPE, 1) and found["spacing"].tolist() == [1, 1, 1] and "truth" not in found
    image = nibabel.load(done / "pnp_admm.nii.gz")
    assert image.shape == (16, 16, 12) and image.header.get_zooms() == (1, 1, 1)
    page = (done / "report.html").read_text()
    assert "Not for diagnosis" in page and "slice 6" in page and "16 measured cone-beam views" in page
    assert {"montage.png", "orthogonal.png", "pnp_admm.tif", "pnp_admm.h5"} <= {p.name for p in done.iterdir()}
    assert json.loads((done / "geometry.json").read_text())["beam"] == "cone"


@pytest.mark.slow
@pytest.mark.parametrize("geometry", list(GEOMETRIES)[1:])
def test_every_geometry_file_gives_that_volume(done, folder, geometry, tmp_path):
    out, more = tmp_path / "out", ["--volume.slice-mm", "1", *GEOMETRIES[geometry]]
    main(words(folder, *placed(*SHAPE), *more, "--workdir", str(out), "--quiet", geometry=geometry))
    np.testing.assert_allclose(arrays(out)["TV"], arrays(done)["TV"], atol=2e-4)


@pytest.mark.slow
def test_finished_rows_are_kept(done, folder, capsys):
    argv = words(folder, *placed(*SHAPE), "--volume.slice-mm", "1", "--workdir", str(done), "--json")
    before = arrays(done)["PnP-ADMM"]
    main(argv)
    assert json.loads(capsys.readouterr().out)["kept"] == 3
    (done / "rows" / "pnp_admm.npz").write_bytes(b"cut")
    main(argv)
    assert {"kept": 2, "done": 1}.items() <= json.loads(capsys.readouterr().out).items()
    np.testing.assert_array_equal(arrays(done)["PnP-ADMM"], before)
    assert "has results of other settings" in refused(main, [*argv, "--seed", "1"], capsys)


def test_a_stop_keeps_what_is_finished(folder, tmp_path, monkeypatch, capsys):
    def rows(*args, **options):
        found = real(*args, **options)
        return found | {"TV": interrupted}

    def interrupted(done):
        raise KeyboardInterrupt

    real, argv = solve_rows.rows_of, words(folder, *placed(*SHAPE), "--workdir", str(tmp_path / "out"), "--quiet")
    monkeypatch.setattr(solve_rows, "rows_of", rows)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 130 and "FDK is finished and kept in" in capsys.readouterr().err
    monkeypatch.setattr(solve_rows, "rows_of", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(argv)
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["rows/fdk"]


def of_slabs(folder):
    """The arguments for weights of slabs, which know z in volumes of 20 slices."""
    network = dataclasses.replace(NETWORK, image_channels=3, position_channels=3)
    path = folder / "s.safetensors"
    save_weights(path, random_params(network), network, frame_for((16, 16), 8), PLAIN, {}, slab=Slab(3, 20, (1, 3)))
    return words(folder, *placed(*SHAPE), "--weights", str(path), "--volume.along-tv", "1e-3")


def test_slabs_are_planned_by_their_number(folder, capsys):
    argv = [*of_slabs(folder), "--dry-run", "--json"]
    assert "trained on volumes of 20 slices, whose z the network knows: give `first`" in refused(main, argv, capsys)
    main([*argv, "--volume.first", "4"])
    assert json.loads(capsys.readouterr().out)["evaluations"] == 3 * 5  # of 3 slices, from any of 3 offsets
    main([*argv, "--volume.first", "4", "--volume.skip", "3"])
    assert json.loads(capsys.readouterr().out)["evaluations"] == 2 * 5 + 9  # the middle level has 3 blocks of 3 slabs


@pytest.mark.slow
def test_slabs_and_a_variation_along_z(folder, tmp_path):
    main([*of_slabs(folder), "--workdir", str(tmp_path / "out"), "--quiet", "--volume.first", "4", "--weighted"])
    assert metrics(tmp_path / "out")["rows"][2]["method"] == "PnP-ADMM"


@pytest.mark.slow
def test_a_simulated_cone_beam_has_scores(folder, tmp_path):
    given = ["--weights", folder / "hu.safetensors", "--image.path", folder / "ct.npz", "--image.index", "1:11"]
    given += ["--scan.geometry", folder / "g.json", "--tv.iterations", "20", "--solver.levels", "2"]
    main([str(a) for a in (*given, "--workdir", tmp_path / "out", "--quiet")])
    found, rows = arrays(tmp_path / "out"), metrics(tmp_path / "out")["rows"]
    x, truth = (np.clip((found[name][..., 0] + 1000) / 2000, 0, 1) for name in ("TV", "truth"))
    assert rows[1]["psnr"] == pytest.approx(float(psnr(x, truth)), abs=1e-3) and rows[1]["psnr"] > 15
    assert rows[1]["ssim"] == pytest.approx(np.mean([ssim(a, b) for a, b in zip(x, truth, strict=True)]), abs=1e-4)
    assert found["spacing"].tolist() == [1.5, 1, 1] and (tmp_path / "out" / "orthogonal_truth.png").exists()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_plan_gives_shapes_and_memory(folder, geometry, tmp_path, capsys):
    argv = words(folder, *placed(*SHAPE), *GEOMETRIES[geometry], "--dry-run", "--json", geometry=geometry)
    main([*argv, "--workdir", str(tmp_path / "out")])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["shape"], plan["measured"], plan["spacing_mm"]) == (list(SHAPE), [VIEWS, *DETECTOR], [1, 1, 1])
    assert plan["evaluations"] == 3 * 12 and 1e4 < plan["bytes_of_solver"] < 1e8
    assert not (tmp_path / "out").exists()


REFUSED = {
    "no shape": (["--measurement.pixel-mm", "1"], "give --volume.shape, such as 14 16 16, which the detector sees"),
    "order of the shape": (
        placed(16, 16, 12),
        "--volume.shape 16 16 12: read as slices, rows and columns its slices are 16 x 12, but ",
    ),
    "size": (placed(12, 20, 20), "w.safetensors knows slices of 16 x 16; give 12 16 16, weights without positions"),
    "order of the axes": (
        [*placed(*SHAPE), "--measurement.path", "turned.npy"],
        "has 14 views of 16 x 24 (rows x columns), but the geometry has 16 views of 14 x 24; read as rows,views,bins "
        "it fits: give --measurement.axes rows,views,bins",
    ),
    "order of the axes, RTK": (
        [*placed(*SHAPE), "--measurement.path", "turned.npy", "--measurement.geometry", "rtk.xml",
         "--measurement.detector-mm", "1", "1"],
        "read as views,rows,bins has 14 views of 16 x 24, but rtk.xml has 16 projections; its axis 1 has so many",
    ),
    "NaN": (
        [*placed(*SHAPE), "--measurement.path", "nan.npy"],
        "nan.npy: 1 of 16 views of sinogram have NaN or infinity, the first of them view 3: fill them in, or leave",
    ),
    "no pitch": ([*placed(*SHAPE), "--measurement.geometry", "rtk.xml"], "give --measurement.detector-mm ROWS COLUMNS"),
    "two pitches": ([*placed(*SHAPE), "--measurement.detector-mm", "1", "1"], "says itself where the detector's"),
    "row": ([*placed(*SHAPE), "--measurement.row", "all"], "a cone beam's rows are no slices, and all are used"),
    "row-mm": ([*placed(*SHAPE), "--measurement.row-mm", "2"], "--volume.slice-mm"),
    "check": (["--measurement.check"], "a cone beam's geometry is not checked"),
    "tilings": ([*placed(*SHAPE), "--tilings", "2"], "--tilings: not for a volume"),
    "no variation": ([*placed(*SHAPE), "--solver", "dps", "--volume.along-tv", "1e-4"], "dps knows none; use one of"),
    "a fan": ([*placed(*SHAPE), "--measurement.geometry", "fan.json"], "and fan.json is no cone beam's geometry"),
    "no file": ([*placed(*SHAPE), "--measurement.geometry", "none.json"], "and none.json is not there"),
    "negative": (["--volume.slice-mm", "-1"], "slice_mm -1.0 and along_tv 0.0 must be finite and not negative"),
    "place along z": ([*placed(*SHAPE), "--volume.first", "3"], "knows no z: leave `first` (--volume.first) out"),
    "behind the source": ([*placed(*SHAPE), "--measurement.pixel-mm", "9"], "of the volume is behind the source"),
}  # fmt: skip


def test_a_pitch_for_rtk_with_a_fan_is_refused(folder):
    config = MeasurementConfig(str(folder / "p.npy"), str(folder / "fan.json"), detector_mm=(1.0, 1.0))
    with pytest.raises(UserError, match="measurement.detector-mm goes with a cone beam's RTK geometry"):
        open_scan(config)


def test_a_plan_refuses_what_the_run_refuses(folder, tmp_path, capsys):
    """Values that give no attenuation, numbers too large for float32, and a folder of other settings."""
    np.save(folder / "none.npy", np.full((VIEWS, *DETECTOR), -1e-3, np.float32))
    plan = words(folder, *placed(*SHAPE), "--dry-run", "--quiet", "--workdir", tmp_path / "out")
    none = [*plan, "--measurement.path", str(folder / "none.npy"), "--measurement.attenuation", "0"]
    assert "its FBP has no positive values; give --measurement.attenuation" in refused(main, none, capsys)
    huge = [*plan, "--measurement.attenuation", "1e-30"]
    assert "too large for computing in float32" in refused(main, huge, capsys)
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "results.json").write_text('{"of": "results", "files": ["job.json"]}')
    assert "has results of other settings" in refused(main, [*plan, "--workdir", str(tmp_path)], capsys)


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_one_line(folder, case, capsys, monkeypatch):
    more, message = REFUSED[case]
    monkeypatch.chdir(folder)
    argv = [word for word in words(folder) if word != "--solver.levels" and word != "3"]
    assert message in refused(main, [*argv, *more], capsys)
    assert not (folder / "results").exists()


def test_simulated_volumes_need_their_spacing(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    argv = "--weights w.safetensors --image.path unspaced.npy --scan.geometry g.json --scan.protocol paper".split()
    assert "choose slices by --image.index, or all" in refused(main, argv, capsys)
    argv += ["--image.index", "all"]
    assert "unspaced.npy: does not tell how wide its pixels are: give --scan.pixel-mm" in refused(main, argv, capsys)
    argv += ["--scan.pixel-mm", "1"]
    assert "does not tell how far apart its slices are: give --volume.slice-mm" in refused(main, argv, capsys)
    fan = [*argv, "--volume.slice-mm", "1", "--scan.geometry", "fan.json"]
    assert "fan.json: a fan beam; --scan.geometry simulates a cone beam" in refused(main, fan, capsys)
    assert "simulates a scan, and --problem is another" in refused(main, [*argv, "--problem", "denoise"], capsys)
    drawn = [*argv[:-4], "--generate", "2"]
    assert "--scan.geometry: of one volume, not of --measurements" in refused(main, drawn, capsys)
    uneven = [*argv, "--image.index", "1,2,5", "--scan.geometry", "g.json"]
    uneven[uneven.index("unspaced.npy")], uneven[1] = "ct.npz", "hu.safetensors"
    assert "chooses slices that are not evenly far apart" in refused(main, uneven, capsys)


def test_a_volume_beyond_memory_is_refused_before_the_run(folder, capsys, monkeypatch):
    monkeypatch.setattr(volume_memory, "free_memory", lambda: 10_000)
    argv = words(folder, *placed(*SHAPE), "--workdir", str(folder / "none"))
    assert "a volume of 12 x 16 x 16 voxels takes about 0.000" in refused(main, argv, capsys)
    assert not (folder / "none").exists()


def test_what_the_detector_does_not_see_is_said(folder, capsys):
    main(words(folder, *placed(24, 16, 16), "--dry-run"))
    assert "% of the rays through the volume pass beside the detector" in capsys.readouterr().err
    main(words(folder, *placed(*SHAPE), "--dry-run"))
    told = capsys.readouterr().err
    assert "pass beside" not in told and "slices are taken to be 1 mm apart, as pixels are" in told


def test_settings_of_a_whole_volume_want_one(folder):
    with pytest.raises(UserError, match=r"--volume.slice-mm is of a volume .* a cone beam's --measurement.geometry"):
        is_whole(Experiment(volume=VolumeConfig(slice_mm=1.0)))
    with pytest.raises(UserError, match="--volume.joint is of a volume .* several slices, chosen by --image.index"):
        is_whole(Experiment(volume=VolumeConfig(joint=True)))
    assert not is_whole(Experiment(image=ImageConfig(index="all")))


def test_counts_and_their_noise(folder):
    lines, flat = np.load(folder / "p.npy").astype(np.float64), np.full(DETECTOR, 900.0) + np.arange(14)[:, None]
    np.savez(folder / "counts.npz", data=flat * np.exp(-lines), flat=flat)
    config = MeasurementConfig(str(folder / "counts.npz"), str(folder / "g.json"))
    scan = read_measured_volume(config, open_measured_volume(config), relative=True)
    np.testing.assert_allclose(scan.projections, lines, atol=1e-6)
    np.testing.assert_allclose(scan.relative_std, np.exp(lines / 2) / np.sqrt(flat), rtol=1e-5)
    assert "data is taken for counts, since there is a flat field" in " ".join(scan.notes)
    assert read_measured_volume(config, open_measured_volume(config)).relative_std is None


def test_the_noise_of_a_simulated_cone_has_a_key_of_its_own(folder):
    """fold_in(image's key, 0), as that of a slice; the solver draws from fold_in(image's key, 1)."""
    image = ImageConfig(str(folder / "ct.npz"), "0:12")
    config = Experiment(image=image, scan=ScanConfig(geometry=str(folder / "g.json"), photons=1e4))
    volume = open_whole(config, load_weights(folder / "hu.safetensors"))
    case = volume.case(0)
    key = jax.random.fold_in(image_key(config.seed, 0), 0)
    attenuation, background = linear_attenuation(HOUNSFIELD)
    expected = cone_measurement(
        key, jnp.asarray(case.truth), case.operator, photons=1e4, pixel_mm=1.0, attenuation=attenuation,
        background=background,
    )  # fmt: skip
    np.testing.assert_array_equal(case.measurement.y, expected.y)


@pytest.mark.slow
def test_slices_side_by_side_are_measured_as_single_ones(folder):
    weights = load_weights(folder / "hu.safetensors")
    image, scan = ImageConfig(str(folder / "ct.npz"), "2:5"), ScanConfig(views=6, bins=24)
    config = Experiment(image=image, scan=scan, volume=VolumeConfig(joint=True))
    volume, base = open_whole(config, weights), open_volume(config, weights)
    case = volume.case(2)
    assert case.image_shape == (3, 16, 16) and case.flatness == pytest.approx(1 / 1.5)
    assert case.smoothed_by(TV(weight=0.1)).depth == pytest.approx(1 / 1.5)
    assert whole.measured_shape(volume) == case.measurement.y.shape == (3, 6, 24)
    for at, number in enumerate(base.numbers):
        np.testing.assert_array_equal(case.measurement.y[at], base.case(number).measurement.y[..., 0])
        np.testing.assert_array_equal(case.truth[at], base.case(number).truth[..., 0])


def test_scores_of_volumes_are_pooled(folder):
    images = read_images(str(folder / "ct.npz"))
    truth = np.asarray(images.images[:])[..., 0]
    y = Measurement(jnp.asarray(truth / 2), jnp.zeros(SHAPE), "paper")
    case = VolumeCase(lambda x: x / 2, y, images.window, images, parallel_scan(4, 24), truth)
    x = np.clip(truth + np.linspace(0, 0.2, 12, dtype=np.float32)[:, None, None], 0, 1)
    row = score("x", x, case)
    assert row.psnr == pytest.approx(-10 * np.log10(np.square(x - truth).mean()), rel=1e-5)
    inside = truth > 0.5  # all of the ball but its hole, which a head's mask fills
    assert row.rmse == pytest.approx(2000 * np.sqrt(np.square(x - truth)[inside].mean()), rel=0.1)
    assert row.ssim == pytest.approx(np.mean([ssim(a, b) for a, b in zip(x, truth, strict=True)]), rel=1e-5)


@pytest.mark.slow
def test_simulated_counts_are_those_of_a_finer_object(folder):
    """With many photons they are A x of a smooth volume, and the noise falls with their root."""
    z, y, x = np.mgrid[-1:1:12j, -1:1:16j, -1:1:16j]
    smooth = np.exp(-3 * (x**2 + y**2 + z**2)).astype(np.float32)
    operator = SCAN.operator(SHAPE, 1.0, 1.0)
    about = dict(pixel_mm=1.0, attenuation=0.04, background=0.01)
    found = cone_measurement(jax.random.key(0), smooth, operator, photons=1e12, **about)
    exact = np.asarray(operator(smooth))
    assert np.linalg.norm(found.y - exact) < 0.03 * np.linalg.norm(exact)
    few = cone_measurement(jax.random.key(0), smooth, operator, photons=1e4, **about)
    error = np.asarray(few.y - found.y) / np.asarray(few.noise_std)
    assert 0.9 < error.std() < 1.1 and few.protocol == "honest"
    with pytest.raises(ValueError, match="photons must be positive"):
        cone_measurement(jax.random.key(0), smooth, operator, photons=0.0, **about)
