"""sample.py --problem: named problems, own masks and kernels, settings from the table, one line for every mistake."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import NETWORK, refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD, ImageSet, Window, read_images
from padis_jax.operators import Blur
from padis_jax.operators.weighting import root_weights, weighted
from padis_jax.problems.registry import PROBLEMS, measure_image
from padis_jax.runs.case import image_key, simulated_case
from padis_jax.runs.config import PROBLEM_NAMES, Experiment
from padis_jax.runs.defaults import first_image, plan_of
from padis_jax.runs.image_config import DEFAULT_IMAGE, ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solve import run_tv, told_noise
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.tv_config import TVConfig
from padis_jax.solvers.registry import METHODS
from padis_jax.solvers.tv import TV, total_variation

QUICK = "--tv.iterations 5 --solver.levels 2 --solver.average 1".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights for grey and colour images of 16 x 16, such pictures, a mask and a kernel."""
    folder = tmp_path_factory.mktemp("data")
    write_weights(folder / "grey.safetensors")
    write_weights(folder / "rgb.safetensors", network=dataclasses.replace(NETWORK, image_channels=3))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / "rgb.png")
    mask = np.full((16, 16), 255, np.uint8)
    mask[3:9, 4:7] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.full((18, 16), 9, np.uint8)).save(folder / "odd.png")
    np.save(folder / "kernel.npy", np.asarray([[0.0, 0.5, 0.0], [0.1, 0.2, 0.2]]))
    return folder


def case_of(config):
    return simulated_case(config, read_images(config.image.path))


def arguments(folder, problem, *more, kind="grey"):
    files = ("--weights", folder / f"{kind}.safetensors", "--image.path", folder / f"{kind}.png")
    return [str(a) for a in (*files, "--problem", problem, *QUICK, *more)]


def run(folder, workdir, problem, *more, **kwargs):
    main([*arguments(folder, problem, *more, **kwargs), "--workdir", str(workdir), "--quiet"])
    with np.load(workdir / "reconstruction.npz") as file:
        return {name: file[name] for name in file.files}, json.loads((workdir / "metrics.json").read_text())


def test_superresolution_of_a_side_with_a_rest(folder):
    config = Experiment(problem="sr4", image=ImageConfig(str(folder / "odd.png"), 0))
    assert case_of(config).measurement.y.shape == (5, 4, 1)  # of 18 x 16


def test_a_problem_in_colour_writes_the_whole_folder(folder, tmp_path):
    arrays, metrics = run(folder, tmp_path, "deblur9", "--save-as", "png", kind="rgb")
    assert set(arrays) == {"truth", "blurred", "TV", "PnP-ADMM", "unit"} and arrays["PnP-ADMM"].shape == (16, 16, 3)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "report.html",
        "results.json",
        "comparison.png",
        "reconstruction.npz",
        "metrics.json",
        "config.json",
        "pnp_admm.png",
    }
    assert metrics["problem"] == "deblur9" and metrics["measured"] == PROBLEMS["deblur9"].description
    assert [row["method"] for row in metrics["rows"]] == ["blurred", "TV", "PnP-ADMM"]
    assert "deblurring, uniform 9 x 9" in (tmp_path / "report.html").read_text()
    # What was measured is the benchmark's measurement of the same image and seed.
    key = image_key(0, 0)
    operator, measurement = measure_image(PROBLEMS["deblur9"], key, jax.numpy.asarray(arrays["truth"]))
    np.testing.assert_allclose(arrays["blurred"], operator.start(measurement.y), atol=1e-6)
    noise = arrays["blurred"] - np.asarray(operator(arrays["truth"]))
    assert abs(noise.std() / 0.01 - 1) < 0.1
    assert metrics["relative_noise"] == pytest.approx(0.01 * np.sqrt(768) / np.linalg.norm(arrays["blurred"]), rel=1e-4)


GREY = [("sr2", ["--noise", "0"], "nearest"), pytest.param("denoise", [], "noisy", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("problem", "flags", "start"), GREY)
def test_grey_problems(folder, tmp_path, problem, flags, start):
    arrays, _ = run(folder, tmp_path, problem, *flags)
    assert set(arrays) == {"truth", start, "TV", "PnP-ADMM", "unit"}
    if problem == "sr2":
        means = arrays["truth"].reshape(8, 2, 8, 2, 1).mean((1, 3))
        np.testing.assert_allclose(arrays[start], means.repeat(2, 0).repeat(2, 1), atol=1e-5)


@pytest.mark.slow
def test_tomography_follows_the_protocol(folder, tmp_path):
    _, counted = run(folder, tmp_path / "a", "fan180", "--scan.pixel-mm", "1")
    _, exact = run(folder, tmp_path / "b", "fan180", "--scan.protocol", "paper")
    assert counted["protocol"] == "honest" and counted["relative_noise"] > 0
    assert exact["protocol"] == "paper" and exact["relative_noise"] == 0
    assert [row["method"] for row in exact["rows"]] == ["FBP", "TV", "PnP-ADMM"]


def test_a_mask_of_ones_own(folder, tmp_path):
    arrays, _ = run(folder, tmp_path, "inpaint", "--mask", str(folder / "mask.png"), "--noise", "0", kind="rgb")
    assert set(arrays) == {"truth", "masked", "nearest known", "TV", "DDS", "unit"}
    expected = arrays["truth"].copy()
    expected[3:9, 4:7] = 0
    np.testing.assert_array_equal(arrays["masked"], expected)


def test_a_picture_of_a_mask_lies_on_the_image_as_it_is_shown(tmp_path):
    """The head CT is stored face down and shown with row 0 at the bottom; the rows of an array are the image's."""
    assert case_of(Experiment(scan=ScanConfig(protocol="paper"))).origin == "lower"
    known = np.ones((256, 256), bool)
    known[:64] = False
    known[70:90, :30] = False
    Image.fromarray(np.uint8(255 * known)).save(tmp_path / "top.png")
    np.save(tmp_path / "rows.npy", np.float32(known))
    Image.fromarray(np.zeros((256, 256), np.uint8)).save(tmp_path / "upright.png")
    for image, mask, expected in (
        (DEFAULT_IMAGE, "top.png", known[::-1]),
        (DEFAULT_IMAGE, "rows.npy", known),
        (str(tmp_path / "upright.png"), "top.png", known),
    ):
        chosen = ImageConfig(image, 41 if image == DEFAULT_IMAGE else 0)
        case = case_of(Experiment(image=chosen, problem="inpaint", mask=str(tmp_path / mask)))
        np.testing.assert_array_equal(np.asarray(case.operator.mask) > 0, expected)


@pytest.mark.parametrize("problem", ["", "ct20"])
def test_photons_see_the_window_of_the_image(problem):
    """Whatever the window, the object is the same and so are the counts: 1 / sqrt(N) over what a value of 1 takes."""
    hu = np.random.default_rng(0).uniform(-900, 900, (1, 16, 16, 1)).astype(np.float32)
    config = Experiment(problem=problem, image=ImageConfig("x", 0), scan=ScanConfig(pixel_mm=2.0))
    weakest = []
    for window in (HOUNSFIELD, Window("HU", -900.0, 2100.0)):
        case = simulated_case(config, ImageSet(window.to_unit(hu), ("x",), window))
        per_pixel = 2.0 * 0.02 * (window.high - window.low) / 1000
        weakest.append(float(1 / (case.measurement.noise_std * per_pixel).max() ** 2))
    np.testing.assert_allclose(weakest, weakest[0], rtol=0.02)
    assert weakest[0] < 8e4


@pytest.mark.parametrize(("rows", "columns"), [(1.5, 0.5), (0.5, 1.5), (1.0, 1.0)])
def test_pixels_that_are_not_square_are_as_long_to_photons_as_the_file_says(rows, columns):
    """A rectangle of water, 0.02 per mm: down the middle of its rows, and along them."""
    images = ImageSet(np.full((1, 16, 16, 1), 0.5, np.float32), ("x",), HOUNSFIELD, spacing=(2.0, rows, columns))
    case = simulated_case(Experiment(image=ImageConfig("x", 0)), images)
    per_unit = 0.04 * columns / case.operator.geometry.pixel_size
    middle = (np.asarray(case.measurement.y)[[0, 9], 256, 0] * per_unit, np.asarray([16 * rows, 16 * columns]))
    angle = np.pi / 40  # of the first view to the columns, and of the tenth to the rows
    np.testing.assert_allclose(middle[0], 0.02 * middle[1] / np.cos(angle), atol=0.015)
    square = simulated_case(Experiment(image=ImageConfig("x", 0), scan=ScanConfig(pixel_mm=1.0)), images)
    assert square.operator.geometry.pixel_aspect == 1


def test_a_kernel_of_ones_own(folder):
    about = {"kernel": str(folder / "kernel.npy"), "boundary": "zero", "noise": 0.0}
    case = case_of(Experiment(problem="deblur", image=ImageConfig(str(folder / "grey.png"), 0), **about))
    operator = Blur(image_shape=(16, 16), kernel=np.load(folder / "kernel.npy"), boundary="zero")
    np.testing.assert_allclose(case.measurement.y, operator(case.truth), atol=1e-6)


@pytest.mark.parametrize("name", ["pnp_admm", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pnp_red", "daps"))])
def test_methods_with_another_cost(folder, tmp_path, name):
    arrays, metrics = run(folder, tmp_path, "inpaint_random", "--solver", name)
    assert metrics["rows"][-1]["evaluations"] == (4 if name == "daps" else 2)
    plan = plan_of(Experiment(problem="denoise", solver=SolverConfig(name, levels=2, average=1)), "noise")
    assert plan.evaluations == metrics["rows"][-1]["evaluations"]
    assert np.isfinite(list(arrays.values())[-2]).all()


@pytest.mark.slow
def test_samples_of_a_problem(folder, tmp_path):
    arrays, metrics = run(folder, tmp_path, "denoise", "--samples", "2", kind="rgb")
    assert {"noisy", "DDS, mean of 2", "deviation"} <= set(arrays) and metrics["samples"]["count"] == 2
    assert (tmp_path / "deviation.png").exists() and arrays["deviation"].shape == (16, 16, 3)


def test_tv_takes_the_weight_of_the_problem(folder):
    """Of the table, in proportion to the noise, unless a weight is given; a fan beam has that of its protocol."""
    for flags, weight in (
        (dict(problem="denoise"), 0.1),
        (dict(problem="denoise", noise=0.05), 0.05),
        (dict(problem="sr2"), 0.001),
        (dict(problem="denoise", tv=TVConfig(weight=0.7, iterations=20)), 0.7),
        (dict(problem="ct8", scan=ScanConfig(pixel_mm=1.0)), 1.0),
        (dict(problem="ct8", scan=ScanConfig(pixel_mm=1.0), weighted=True), 1.0),
        (dict(problem="ct8", scan=ScanConfig(protocol="paper")), 0.003),
    ):
        image = ImageConfig(str(folder / "grey.png"), 0)
        config = Experiment(**{"image": image, "tv": TVConfig(iterations=20), **flags})
        case = case_of(config)
        settings = TV(weight=case.evenness * weight, iterations=20)
        expected = total_variation(case.measurement.y, case.operator, settings=settings, noise_std=case.noise_std).image
        found = run_tv(config, case)
        np.testing.assert_array_equal(found, expected)
        assert (case.evenness < 0.99) == config.weighted  # counts differ in their noise


def test_photons_weigh_each_ray_where_that_is_asked_for(folder):
    image, scan = ImageConfig(str(folder / "grey.png"), 0), ScanConfig(pixel_mm=5.0)
    plain = Experiment(problem="ct8", image=image, scan=scan)
    config = dataclasses.replace(plain, weighted=True)
    case = case_of(config)
    np.testing.assert_array_equal(told_noise(config, case), case.measurement.noise_std)
    root, scale = root_weights(case.measurement.noise_std)
    norm = weighted(case.operator, root, case.image_shape).norm
    rms = case.measurement.noise_sigma
    assert case.evenness == pytest.approx(float(scale / rms) ** 2, rel=1e-4)
    assert case.share == pytest.approx(float(scale / rms * case.operator.norm / norm) ** 2, rel=1e-4)
    one = told_noise(plain, case_of(plain))
    assert one.shape == () and one == rms and case_of(plain).evenness == case_of(plain).share == 1
    named = dataclasses.replace(config, solver=SolverConfig("dds", noise=0.5))
    assert told_noise(named, case) is None and plan_of(named, case.kind).settings.noise == 0.5
    gaussian = dataclasses.replace(config, problem="denoise")
    assert told_noise(gaussian, case_of(gaussian)).shape == ()


@pytest.mark.parametrize("solver", ["pnp_admm", "dds", "diffpir"])
def test_presets_of_the_prior_follow_the_weights_and_named_settings_stay(solver):
    case = SimpleNamespace(share=0.25)
    usual, even = (plan_of(Experiment(solver=SolverConfig(solver)), "counts", c).settings for c in (None, case))
    field = {"pnp_admm": "weight", "dds": "consistency"}.get(solver)
    assert even == dataclasses.replace(usual, **({field: 0.25 * getattr(usual, field)} if field else {}))
    if field:
        named = plan_of(Experiment(solver=SolverConfig(solver, **{field: 0.3})), "counts", case)
        assert getattr(named.settings, field) == 0.3


def test_only_the_head_ct_has_slice_41():
    assert first_image(Experiment(), ["--image.path", "other.npy"]).image.index == 41
    assert first_image(Experiment(), ["--problem", "sr2", "--image.path", "other.npy"]).image.index == 0
    assert first_image(Experiment(), ["--problem", "sr2"]).image.index == 41


def test_dry_run_counts(folder, tmp_path, capsys):
    more = ("--samples", "3", "--solver", "predictor_corrector", "--dry-run", "--json")
    main([*arguments(folder, "sr2", *more), "--workdir", str(tmp_path / "none")])
    found = json.loads(capsys.readouterr().out)
    assert found["evaluations"] == 2 * 3 * 2 and "--problem sr2" in found["measurement"]
    assert not (tmp_path / "none").exists()


def test_help_names_the_problems(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--problem" in text and "--mask" in text and "--kernel" in text
    assert not [name for name in (*PROBLEM_NAMES, *METHODS) if name not in text]


def own_mask(values, name="m.png"):
    def make(folder, tmp_path):
        Image.fromarray(np.asarray(values, np.uint8)).save(tmp_path / name)
        return ["--mask", tmp_path / name]

    return make


def own_kernel(values):
    def make(folder, tmp_path):
        np.save(tmp_path / "k.npy", np.asarray(values), allow_pickle=np.asarray(values).dtype == object)
        return ["--kernel", tmp_path / "k.npy"]

    return make


HALF = np.repeat([0, 255], 8)[:, None].repeat(16, 1)
MISTAKES = {
    "unknown": ("deblur10", lambda f, t: [], "there is no problem 'deblur10'; choose one of ct8, ct20"),
    "mask missing": ("inpaint", lambda f, t: [], "--problem inpaint and --mask FILE belong together"),
    "kernel missing": ("deblur", lambda f, t: [], "--problem deblur and --kernel FILE belong together"),
    "mask elsewhere": ("sr2", lambda f, t: ["--mask", f / "mask.png"], "--problem inpaint and --mask FILE belong"),
    "no mask file": ("inpaint", lambda f, t: ["--mask", t / "no.png"], "no.png: no such file"),
    "mask of another size": ("inpaint", own_mask(HALF[:, :9]), "m.png: (16, 9) pixels, but the image has (16, 16)"),
    "mask in colour": ("inpaint", own_mask(HALF[..., None] * [1, 1, 0]), "is in colour"),
    "mask of 0 and 100": ("inpaint", own_mask(HALF // 255 * 100), "no pixel is above half of white"),
    "mask all white": ("inpaint", own_mask(np.full((16, 16), 255)), "every pixel is above half of white"),
    "kernel as text": ("deblur", lambda f, t: ["--kernel", t / "k.txt"], "must be a .npy file of [h, w]"),
    "no kernel file": ("deblur", lambda f, t: ["--kernel", t / "k.npy"], "k.npy: no such file"),
    "kernel of one axis": ("deblur", own_kernel(np.ones(5)), "float64 of shape (5,); a kernel is [h, w]"),
    "kernel too large": ("deblur", own_kernel(np.ones((3, 17))), "(3, 17) is larger than the image of (16, 16)"),
    "kernel with NaN": ("deblur", own_kernel([[np.nan, 1.0]]), "must be finite and not all 0"),
    "kernel of objects": ("deblur", own_kernel(np.asarray([[None, 1]], object)), "not a readable .npy of numbers"),
    "complex kernel": ("deblur", own_kernel([[1j, 1.0]]), "complex128 of shape (1, 2)"),
    "boundary": ("sr2", lambda f, t: ["--boundary", "zero"], "belongs to --problem deblur"),
    "noise": ("sr2", lambda f, t: ["--noise", "-1"], "--noise -1: give a standard deviation from 0"),
    "noise of photons": ("ct8", lambda f, t: ["--noise", "0.1"], "photon counts have their own"),
    "views": ("ct8", lambda f, t: ["--scan.views", "9"], "scan.views: --problem ct8 has its own"),
    "ddnm": ("denoise", lambda f, t: ["--solver", "ddnm"], "not with ddnm: A+ is 1"),
    "inner steps of ancestral": (
        "sr2",
        lambda f, t: ["--solver", "dps", "--solver.inner", "2"],
        "use 1, or --solver.prior-step langevin",
    ),
    "samples of pnp": ("sr2", lambda f, t: ["--solver", "pnp_red", "--samples", "2"], "leave --samples and"),
    "measured": ("sr2", lambda f, t: ["--measurement.path", "scan.npz"], "leave it out with measured data"),
    "colour for grey": ("sr2", lambda f, t: ["--image.path", f / "rgb.png"], "trained on images of 1 channels, not 3"),
    "CT in colour": (
        "ct8",
        lambda f, t: ["--image.path", f / "rgb.png", "--scan.protocol", "paper"],
        "images of 1 channels, not 3; add --image.grey",
    ),
    "value missing": ("sr2", lambda f, t: ["--image.path"], "--image.path"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_give_one_line_and_write_nothing(folder, tmp_path, capsys, case):
    problem, make, expected = MISTAKES[case]
    flags = arguments(folder, problem, *make(folder, tmp_path))
    split = flags if case == "value missing" else [*flags, "--workdir", str(tmp_path / "out")]
    message = refused(main, split, capsys)
    assert expected in message, message
    assert not (tmp_path / "out").exists()
