"""Every family of methods runs in the benchmark, with its own network, and those that cannot say so."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import NETWORK, random_like, write_weights

from padis_jax.baselines.cnn import CNNConfig, init_cnn
from padis_jax.baselines.file import CNN, SUPERVISED, Baseline, save_baseline
from padis_jax.benchmark import photos, work
from padis_jax.benchmark.data import Pictures, ct_slices, photographs
from padis_jax.benchmark.grid import Benchmark
from padis_jax.benchmark.leakage import trained_on
from padis_jax.benchmark.methods import METHODS, MORE, described, plan_of, refusal
from padis_jax.benchmark.networks import Networks, Trained
from padis_jax.config import Config, load_config_file
from padis_jax.errors import UserError
from padis_jax.images import PLAIN
from padis_jax.patches import frame_for
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs import solve
from padis_jax.unet import init_network
from padis_jax.weights import Weights, load_weights

WHOLE = dataclasses.replace(NETWORK, position_channels=0)
SCANS = ("ct8", "ct20", "fan180", "limited120")


def trained_for(name, **changes):
    """What a file of studies.supervised says of a problem of CT, at 16 x 16 pixels."""
    about = {
        "problem": name,
        "definition": PROBLEMS[name].definition,
        "sigma": PROBLEMS[name].sigma,
        "protocol": "paper",
    }
    return {**about, "image_shape": [16, 16], "images": "others.npy", "slices": [0], **changes}


def baseline(path, kind, init, config, about):
    params = random_like(jax.eval_shape(lambda: init(jax.random.key(0), config)), scale=0.02)
    save_baseline(path, kind, config, params, about)
    return str(path)


@pytest.fixture
def config(tmp_path):
    """Flags that name a tiny network of every kind."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(size=(1, 16, 16)).astype(np.float32))
    return Benchmark(
        weights=str(write_weights(tmp_path / "patch.safetensors")),
        weights_whole=str(write_weights(tmp_path / "whole.safetensors", network=WHOLE, patch=0)),
        cnn=baseline(tmp_path / "cnn.safetensors", CNN, init_cnn, CNNConfig(features=4, layers=2), {}),
        supervised=(baseline(tmp_path / "s.safetensors", SUPERVISED, init_network, WHOLE, trained_for("ct8")),),
        ct=str(tmp_path / "images.npy"),
        out=str(tmp_path / "out"),
        evaluations=2,
    )


@pytest.mark.slow
def test_every_family_runs(config, tmp_path):
    wanted = {
        "pnp_red_cnn": 2,
        "pnp_admm": 2,
        "pnp_admm_average": 2,
        "supervised": 1,
        "whole_diffpir": 2,
        "dds_mean8": 16,
        "dps_stitch": 2,
        "dds_tilings2": 2,
    }
    config = dataclasses.replace(config, only=tuple(f"ct8/{name}" for name in wanted))
    found, finished = work.prepare(config), {}
    assert not [e for e in found.fields if e.refused]
    failed: dict[str, str] = {}
    work.run(config, found, tmp_path / "out", finished, failed, silent=True)
    assert not failed
    assert {r.method: r.evaluations for r in finished.values()} == wanted
    assert all(r.psnr is not None and r.seconds > 0 and r.residual > 0 for r in finished.values())
    assert len({r.psnr for r in finished.values()}) == len(wanted)  # no two names run the same thing
    digests = {r.config["network_sha256"] for r in finished.values()}
    assert len(digests) == 4  # patch, whole, cnn, supervised


@pytest.mark.slow
def test_every_sampler_runs_on_the_whole_image_model(config, tmp_path):
    config = dataclasses.replace(config, only=("ct8/whole_*",), evaluations=2)
    finished, failed = {}, {}
    work.run(config, work.prepare(config), tmp_path / "out", finished, failed, silent=True)
    samplers = [name for name in METHODS if name.startswith("whole_")]
    assert not failed and [r.method for r in finished.values()] == samplers and "whole_dps" in samplers
    assert all(r.psnr is not None and r.evaluations == 2 for r in finished.values())
    assert len({r.psnr for r in finished.values()}) == len(samplers)


def test_plug_and_play_starts_from_total_variation(config, tmp_path, monkeypatch):
    starts, scenes, real = [], [], solve.reconstruct
    monkeypatch.setattr(
        solve, "reconstruct", lambda *a, start, **options: starts.append(start) or real(*a, start=start, **options)
    )
    run_cell = work.run_cell
    monkeypatch.setattr(
        work, "run_cell", lambda cell, scene, *rest: scenes.append(scene) or run_cell(cell, scene, *rest)
    )
    config = dataclasses.replace(config, only=("ct8/pnp_red_cnn", "ct8/pnp_admm"))
    work.run(config, work.prepare(config), tmp_path / "out", {}, {}, silent=True)
    assert len(starts) == 2 and float(np.std(starts[0])) > 0
    for start, scene in zip(starts, scenes, strict=True):
        np.testing.assert_array_equal(start, scene.tv()[0])


def test_supervised_is_for_its_problem_only(config, tmp_path):
    found = work.prepare(dataclasses.replace(config, only=tuple(f"{t}/supervised" for t in SCANS)))
    none = "no network at hand: --supervised"
    assert [e.refused for e in found.fields] == ["", none, none, none]

    def prepare(about, only="ct8/supervised", network=WHOLE):
        path = baseline(tmp_path / "other.safetensors", SUPERVISED, init_network, network, about)
        return work.prepare(dataclasses.replace(config, supervised=(path,), only=(only,)))

    for about, message in (
        ({}, "trained for an unknown scan, .* train with --problem NAME"),
        ({"scan": {"views": 8}}, "trained for {'views': 8}"),
        (trained_for("ct8", problem="ct9"), "which is not a named problem"),
        (
            trained_for("ct8", protocol="honest"),
            "protocol honest, .*with --problem ct8 --scan.protocol paper",
        ),
        (trained_for("ct8", definition=PROBLEMS["ct20"].definition), "trained for ct8 with definition"),
        (trained_for("denoise", sigma=0.2), "with sigma 0.2, .*train with --problem denoise, and without --noise"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(about)
    assert not prepare(trained_for("fan180"), "fan180/supervised").fields[0].refused
    larger = prepare(trained_for("ct8", image_shape=[32, 32]))
    assert larger.fields[0].refused == "network for images of [32, 32] pixels, not [16, 16]" and not larger.jobs
    other = prepare(trained_for("ct8"), network=dataclasses.replace(WHOLE, image_channels=3))
    assert other.fields[0].refused == "network for 3 channels, images of 1"
    seen = prepare(trained_for("ct8", images=config.ct, slices=[3, 0]))
    assert seen.fields[0].refused == "it was trained on test slice 0" and not seen.jobs


def test_networks_that_saw_the_test_images_are_refused(tmp_path, monkeypatch):
    """What a file says that it was trained on is compared with the test images by file and number."""
    images = np.random.default_rng(1).uniform(size=(6, 16, 16)).astype(np.float32)
    for name, values in (("images", images), ("copy", images), ("others", 0.5 * images)):
        np.save(tmp_path / f"{name}.npy", values)
    monkeypatch.chdir(tmp_path)
    pictures = ct_slices("images.npy", 2, None)
    assert pictures.indices == (0, 5)
    tiny = CNNConfig(features=4, layers=2)

    def refused(name, about):
        content = {
            "dds": Weights({}, NETWORK, frame_for((16, 16), 8), PLAIN, about, ""),
            "whole_dds": Weights({}, WHOLE, frame_for((16, 16), 0), PLAIN, about, ""),
            "pnp_red_cnn": Baseline({}, tiny, about),
            "supervised": Baseline({}, WHOLE, {"image_shape": [16, 16], **about}),
        }
        trained = Trained("a file", "its digest", content[name])
        networks = Networks({(METHODS[name].network, 1): trained}, {"ct8": trained})
        return refusal(name, "ct8", pictures, networks)

    for method in ("dds", "whole_dds"):
        for path in ("images.npy", "./images.npy", str(tmp_path / "images.npy"), "copy.npy"):
            held_out = {"path": path, "test": [0, 5], "test_gap": 1}
            assert refused(method, {"config": {"data": held_out}}) == "", path
            half = {"path": path, "test": [0], "validation": [1]}
            assert refused(method, {"config": {"data": half}}) == "it was trained on test slice 5", path
            gaps = {"path": path, "test": [1], "test_gap": 1, "validation": [4], "validation_gap": 1}
            assert refused(method, {"config": {"data": gaps}}) == "", path
            one = {"path": path, "validation": [0], "limit": 2}  # of slices 1 to 5 the first and the last
            assert refused(method, {"config": {"data": one}}) == "it was trained on test slice 5"
            assert refused(method, {"config": {"data": one | {"limit": 1}}}) == ""
        others = {"config": {"data": {"path": "others.npy"}}}
        assert refused(method, others) == ""
        seen = {"provenance": {"config": {"data": half}}}
        for start in (seen, {"provenance": {**others, "start_weights": seen}}):
            assert refused(method, {**others, "start_weights": start}) == "it was trained on test slice 5"
        for start in ({"provenance": others}, {"provenance": 3}, {}, "a", None):
            assert refused(method, {**others, "start_weights": start}) == ""
        for unknown in (
            {},
            {"config": 3},
            {"config": {"data": {"path": 3}}},
            {"config": {"data": half | {"test": [9]}}},
        ):
            assert refused(method, unknown) == ""
    for method in ("pnp_red_cnn", "supervised"):
        for path in ("images.npy", "./images.npy", str(tmp_path / "images.npy"), "copy.npy"):
            assert refused(method, {"images": path, "slices": [5, 3]}) == "it was trained on test slice 5", path
            assert refused(method, {"images": path, "slices": [1, 2]}) == ""
        for about in ({"images": "others.npy", "slices": [0]}, {}, {"images": "images.npy"}):
            assert refused(method, about) == ""


def test_levels_stay_in_the_range_of_a_plain_denoiser():
    """Few views begin at 0.5; the shipped denoisers were trained up to 0.2."""
    few, method = PROBLEMS["ct8"], METHODS["pnp_admm_cnn"]
    usual = plan_of(method, few, 25)
    assert (usual.sigma_max, usual.sigma_min, usual.settings.sigma) == (0.5, 0.015, 0.0)
    trained = Trained("a file", "its digest", Baseline({}, CNNConfig(sigma_min=0.02, sigma_max=0.2), {}))
    assert plan_of(method, few, 25, trained) == usual._replace(sigma_max=0.2, sigma_min=0.02)
    assert described("pnp_admm_cnn", "ct8", 25, trained)["plan"]["sigma_max"] == 0.2
    wide = trained._replace(content=Baseline({}, CNNConfig(sigma_min=0.001, sigma_max=1.0), {}))
    assert plan_of(method, few, 25, wide) == usual
    fixed = PROBLEMS["sr8"]
    assert plan_of(method, fixed, 25, trained) == plan_of(method, fixed, 25)


def test_networks_of_another_data_set_are_not_refused_on_the_head_ct(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    pictures = ct_slices("data/head_ct.npz", 4, None)
    other = Baseline({}, WHOLE, {"images": "other/lungs.npz", "slices": list(range(50))})
    assert trained_on(other, pictures) == []
    assert trained_on(other._replace(about={**other.about, "images": "./data/head_ct.npz"}), pictures) == [20, 41]
    for name in ("head_ct", "head_ct_whole"):
        assert trained_on(load_weights(f"weights/{name}.safetensors"), pictures) == []


def test_what_does_not_apply(config):
    found = work.prepare(dataclasses.replace(config, only=("ct8/dds",)))
    pictures, networks = found.pictures["ct8"], found.networks
    assert "put the noisy image back" in refusal("whole_ddnm", "denoise", pictures, networks)
    assert "the inverse of a blur amplifies" in refusal("ddnm", "deblur17", pictures, networks)
    assert refusal("ddnm", "sr4", pictures, networks) == ""
    larger = Pictures("larger", np.zeros((1, 24, 16, 1), np.float32), ("a",), (0,), PLAIN)
    assert "network of (16, 16) pixels, images of (24, 16)" in refusal("dds", "denoise", larger, networks)
    colour = Pictures("colour", np.zeros((1, 16, 16, 3), np.float32), ("a",), (0,), PLAIN)
    assert refusal("dds", "denoise", colour, networks) == "no network at hand: --weights-rgb"
    for name, method in METHODS.items():
        for problem in PROBLEMS:
            never = (name, problem) == ("sirt", "sr4_bicubic")
            assert bool(refusal(name, problem, pictures, Networks())) == (bool(method.network) or never)
        assert (MORE in method.text) == method.tiling.startswith("overlap")


def test_crops():
    image = np.arange(7 * 5 * 1).reshape(7, 5, 1)
    cut = photos.crops(image, side=3)
    np.testing.assert_array_equal(cut, np.stack([image[0:3, 1:4], image[3:6, 1:4]]))
    close = photos.crops(image, side=3, step=2)
    np.testing.assert_array_equal(close[0], image[:3, :3])
    np.testing.assert_array_equal(close[-1], image[-3:, -3:])
    assert len(close) == 3 * 2


def test_photographs_that_are_tested_on_are_not_trained_on(tmp_path, request):
    pytest.importorskip("skimage")
    tested = photographs("", 5)
    assert tested.images.shape == (5, 256, 256, 3) and 0.9 < tested.images.max() <= 1.0
    assert tested.names == ("astronaut 0", "chelsea 0", "astronaut 1", "astronaut 2", "astronaut 3")
    assert not {*photos.TEST, *photos.VALIDATION} & {*photos.TRAIN} and not {*photos.TEST} & {*photos.VALIDATION}
    photos.main(["--out", str(tmp_path / "photos.npy")])
    array = np.load(tmp_path / "photos.npy")
    assert array.shape[1:] == (256, 256, 3) and array.dtype == np.uint8
    config = load_config_file(request.config.rootpath / "configs" / "photos_two.py", Config)
    held_out = len(photos.crops(photos.photograph(photos.VALIDATION[0]), step=photos.STEP))
    assert config.data.validation == tuple(range(len(array) - held_out, len(array)))


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install scikit-image"):
        photographs("", 1)
