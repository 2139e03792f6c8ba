"""--dry-run builds the case of the run with the same checks: what the run refuses, the dry run refuses likewise."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import test_cli_problem
import test_cli_sample
from jax import monitoring
from small_scan import GEOMETRY, arguments, write_scan
from test_cli_problem import folder as problems  # noqa: F401 (a fixture)
from test_cli_sample import folder as images  # noqa: F401 (a fixture)
from tiny import NETWORK, failing, refused, write_weights

from padis_jax.cli import sample
from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD
from padis_jax.measurements.geometry import write_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.operators import forget
from padis_jax.runs.case import measured_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import kind_named, tv_of
from padis_jax.runs.job import Done
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.solvers.presets import tv_preset
from padis_jax.weights import load_weights


def some(cases):
    """Every fourth case at once, all of them with the slow tests."""
    return [name if i % 4 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(cases)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A measured scan, and a folder of two."""
    folder = write_scan(tmp_path_factory.mktemp("scans"))
    (folder / "many").mkdir()
    for name in "ab":
        np.save(folder / "many" / f"{name}.npy", np.load(folder / "scan.npy"))
    return folder


@pytest.mark.parametrize("mistake", some(test_cli_sample.MISTAKES))
def test_a_scan_is_refused_as_the_run_refuses_it(images, tmp_path, capsys, mistake):  # noqa: F811
    make, expected = test_cli_sample.MISTAKES[mistake]
    args = test_cli_sample._arguments(images, tmp_path / "out", *make(images, tmp_path))
    assert expected in refused(main, ["--dry-run", *args], capsys) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", some(test_cli_problem.MISTAKES))
def test_a_problem_is_refused_as_the_run_refuses_it(problems, tmp_path, capsys, mistake):  # noqa: F811
    problem, make, expected = test_cli_problem.MISTAKES[mistake]
    args = test_cli_problem.arguments(problems, problem, *make(problems, tmp_path))
    args = ["--dry-run", "--workdir", tmp_path / "out", *args]
    assert expected in refused(main, args, capsys) and not (tmp_path / "out").exists()


def test_a_grey_picture_is_not_approved_for_colour_weights(problems, capsys):  # noqa: F811
    args = test_cli_problem.arguments(problems, "sr2", "--weights", problems / "rgb.safetensors", "--dry-run")
    assert "trained on images of 3 channels, not 1" in refused(main, args, capsys)


def test_weights_without_positions_need_no_new_frame(images, tmp_path, capsys):  # noqa: F811
    free = write_weights(tmp_path / "free.safetensors", network=dataclasses.replace(NETWORK, position_channels=0))
    args = test_cli_sample._arguments(images, tmp_path / "out", "--dry-run", image="wide.npy")
    assert "name weights without positions" in refused(main, args, capsys)
    main([*args, "--weights", str(free), "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"] == 3


def test_the_plan_of_images_from_the_prior(images, tmp_path, capsys):  # noqa: F811
    args = ["--weights", str(images / "w.safetensors"), "--generate", "2", "--generate-levels", "7", "--dry-run"]
    main([*args, "--json", "--workdir", str(tmp_path / "out")])
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"] == 2 and plan["evaluations"] == 14 and plan["bytes"] > 0 and plan["seconds"] is None
    main([*args, "--estimate", "--workdir", str(tmp_path / "out")])
    assert " s and " in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_numbers_of_images_that_keys_cannot_take(scans, capsys):
    for index in (-1, 2**32):
        line = refused(main, arguments(scans, "--dry-run", f"--image.index={index}"), capsys)
        assert f"--image.index {index}: images are counted from 0" in line


def test_the_plan_names_the_true_input(scans, tmp_path, capsys):
    args = arguments(scans, "--dry-run", "--json", "--workdir", str(tmp_path / "out"))
    main(args)
    assert json.loads(capsys.readouterr().out)["measurement"] == f"{scans / 'scan.npy'}, 24 measured views"
    folder = [*folder_of(scans), "--json", "--workdir", str(tmp_path / "out")]
    main(folder)
    plan = json.loads(capsys.readouterr().out)
    assert plan["measurements"] == str(scans / "many") and plan["items"] == 2 and plan["evaluations_each"] == 3
    assert plan["evaluations"] == 6 and plan["bytes"] > 0 and plan["seconds"] is None
    assert not (tmp_path / "out").exists()
    np.save(scans / "many" / "a.npy", np.full((24, 32), np.nan, np.float32))
    (scans / "many" / "b.npy").write_bytes(b"nothing")
    assert "none of its 2 files can be used" in refused(main, folder, capsys)
    write_weights(scans / "rgb.safetensors", network=dataclasses.replace(NETWORK, image_channels=3))
    assert "sinograms are grey" in refused(main, [*folder, "--weights", str(scans / "rgb.safetensors")], capsys)


@pytest.fixture
def compiled():
    """Names of the events of XLA's compiler, and no programs from before."""
    events = []

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.clear_caches()
    forget()
    monitoring.register_event_duration_secs_listener(listen)
    yield events
    monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("flags", [[], ["--samples", "2"], ["--weighted"]])
def test_a_scan_is_traced_and_nothing_is_compiled(images, tmp_path, capsys, compiled, flags):  # noqa: F811
    main(test_cli_sample._arguments(images, tmp_path / "out", "--dry-run", "--json", *flags))
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["evaluations"] and plan["bytes"] > 0 and plan["seconds"] is None and not compiled


@pytest.mark.parametrize("problem", ["inpaint_random", "deblur9", "sr2"])
def test_a_problem_is_traced_and_nothing_is_compiled(problems, capsys, compiled, problem):  # noqa: F811
    main(test_cli_problem.arguments(problems, problem, "--dry-run", "--json"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] > 0 and not compiled


def folder_of(scans, many=None):
    args = arguments(scans, "--dry-run")
    at = args.index("--measurement.path")
    return ["--measurements", str(many or scans / "many"), *args[:at], *args[at + 2 :]]


def test_every_file_of_a_folder_is_read_and_nothing_is_compiled(scans, tmp_path, capsys, compiled, monkeypatch):
    many, good = tmp_path / "many", np.load(scans / "scan.npy")
    many.mkdir()
    holes = np.where(np.arange(32) == 5, np.nan, good)
    stored = {"a": good, "b": good, "c": np.ones((24, 31), np.float32), "d": np.ones(3), "f": holes, "g": 1e20 * good}
    for name, values in stored.items():
        np.save(many / f"{name}.npy", values)
    (many / "e.npy").write_bytes(b"nothing")
    args = [*folder_of(scans, many), "--workdir", str(tmp_path / "out"), "--measurement.kind", "line-integrals"]
    failing(main, [*args, "--json"], "5 of 7 measurements cannot be used; the first: ")
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert list(refused) == ["c", "d", "e", "f", "g"] and "(24, 31)" in refused["c"] and "d.npy" in refused["d"]
    assert "NaN or infinity" in refused["f"] and "too large for computing in float32" in refused["g"]
    with pytest.raises(SystemExit):
        main(args)
    assert "f: cannot be used: " in (said := capsys.readouterr()).out and "100%" in said.err
    assert not compiled and not (tmp_path / "out").exists()
    args.remove("--dry-run")
    solved = SimpleNamespace(images=np.zeros((8, 16, 16, 1)), residual=np.zeros((8, 1)))
    monkeypatch.setattr("padis_jax.cli.batch.run_batch", lambda *_, **__: solved)
    failing(main, args, "5 of 7 measurements failed; the first: ")
    lines = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert {line["item"]: line["reason"] for line in lines if line["status"] == "failed"} == refused


def test_every_sinogram_of_a_folder_is_read_whole(images, tmp_path, capsys, compiled):  # noqa: F811
    """Those without a geometry; where none is good, the run ends as its plan."""
    (scans := tmp_path / "scans").mkdir()
    good = np.ones((5, 24))
    bad = {"b": {"sinogram": np.where(good * np.arange(24) == 3, np.inf, 1)}, "c": {"sinogram": 1e16 * good}}
    bad["d"] = {"sinogram": good, "noise_sigma": -1.0}
    for name, stored in {"a": {"sinogram": good}, **bad}.items():
        np.savez(scans / f"{name}.npz", **stored)
    args = ["--weights", images / "w.safetensors", "--measurements", scans, "--workdir", tmp_path / "out"]
    args = [str(a) for a in (*args, *"--scan.views 5 --scan.bins 24 --tv.iterations 5 --solver.levels 2".split())]
    failing(main, [*args, "--dry-run", "--json"], "3 of 4 measurements cannot be used; the first: ")
    assert list(json.loads(capsys.readouterr().out)["refused"]) == ["b", "c", "d"] and not compiled
    (scans / "a.npz").unlink()
    lines = [refused(main, [*args, "--quiet", *more], capsys) for more in (["--dry-run"], [])]
    assert lines[0] == lines[1] and "no measurement can be used; the first: " in lines[0] and "b.npz" in lines[0]


def test_every_row_and_slice_is_read(scans, images, tmp_path, capsys, compiled, monkeypatch):  # noqa: F811
    monkeypatch.setattr("padis_jax.cli.volume.slices_solver", lambda *_, **__: lambda _, items: [Done()] * len(items))
    rows = np.stack([np.load(scans / "scan.npy")] * 4, 1)
    rows[3, 1, 5] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    slices = np.full((4, 16, 16), 0.5, np.float32)
    slices[1, 3, 4] = np.nan
    np.save(tmp_path / "slices.npy", slices)
    given = {
        "row": arguments(scans, "--measurement.path", tmp_path / "rows.npy", "--measurement.row", "all"),
        "image": test_cli_sample._arguments(images, tmp_path / "out", "--image.path", tmp_path / "slices.npy",
                                            "--image.index", "all"),
    }  # fmt: skip
    for what, args in given.items():
        args = [str(a) for a in (*args, "--dry-run", "--workdir", tmp_path / "out", "--quiet", "--batch", "1")]
        with pytest.raises(SystemExit) as stopped:
            main(args)
        said = capsys.readouterr()
        assert stopped.value.code == 2 and f"{what} 1: cannot be used: " in said.out and said.err.count("\n") == 1
        assert "1 of 4 slices cannot be used, 1; the first: " in said.err and "leave it out: --" in said.err
        assert not compiled and not (tmp_path / "out").exists()
        with pytest.raises(SystemExit) as stopped:
            main([*args, "--json"])
        assert list(json.loads(capsys.readouterr().out)["refused"]) == ["1"]
        if what == "image":
            args.remove("--dry-run")
            assert "1 of 4 slices failed, 1; the first: " in refused(main, args, capsys)


def test_the_attenuation_of_an_fbp_is_found_as_the_run_finds_it(scans, tmp_path, capsys):
    """The negative of a scan has bright parts too; one that falls from the middle has none."""
    np.save(tmp_path / "negative.npy", -np.load(scans / "scan.npy"))
    np.save(tmp_path / "none.npy", np.full((24, 32), -1e-3, np.float32))
    args = arguments(scans, "--dry-run", "--quiet", "--measurement.attenuation", "0", "--workdir", tmp_path / "out")
    main([*args, "--measurement.path", str(tmp_path / "negative.npy")])
    args += ["--measurement.path", str(tmp_path / "none.npy")]
    planned = refused(main, args, capsys)
    assert "its FBP has no positive values; give --measurement.attenuation" in planned
    assert refused(main, [a for a in args if a != "--dry-run"], capsys) == planned


def test_numbers_of_a_scan_that_no_method_takes(scans, tmp_path, capsys):
    flags = {
        "too large for computing in float32": ["--measurement.attenuation", "1e-30"],
        "no ray meets the image": ["--measurement.pixel-mm", "1e-12"],
        "its noise has values up to": ["--measurement.noise", "1e14"],
    }
    for expected, more in flags.items():
        assert expected in refused(main, arguments(scans, "--dry-run", "--quiet", *more), capsys)
    args = arguments(scans, "--quiet", "--workdir", tmp_path / "out", *flags["no ray meets the image"])
    assert "no ray meets the image" in refused(main, args, capsys)


def test_results_of_other_settings_are_refused_before_the_run(scans, tmp_path, capsys):
    (many := tmp_path / "many").mkdir()
    np.save(many / "a.npy", np.load(scans / "scan.npy"))
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "results.json").write_text('{"of": "results", "files": ["job.json"]}')
    for args in (folder_of(scans, many), arguments(scans, "--dry-run", "--measurement.row", "0:1")):
        message = refused(main, [*args, "--workdir", tmp_path, "--quiet"], capsys)
        assert "has results of other settings" in message and (tmp_path / "job.json").read_text() == "{}"


def test_what_only_the_run_finds_is_said(scans, tmp_path, capsys):
    """The axis of a full turn is found from lines that are measured twice, that of a short arc from an image."""
    args = [*arguments(scans, "--dry-run", "--workdir", tmp_path / "out"), "--measurement.find-centre"]
    main(args)
    assert "the rotation axis was found at offset_mm = 0.5" in capsys.readouterr().out
    np.save(tmp_path / "arc.npy", np.load(scans / "scan.npy")[:9])
    write_geometry(tmp_path / "arc.json", dataclasses.replace(GEOMETRY, angles=GEOMETRY.angles[:9]))
    main([*args, "--measurement.path", str(tmp_path / "arc.npy"), "--measurement.geometry", str(tmp_path / "arc.json")])
    assert "only the run finds the rotation axis" in capsys.readouterr().out
    auto = [*arguments(scans, "--dry-run", "--auto", "--solver", "pnp_admm")]
    for flag in ("--solver.levels", "--solver.cg-steps"):
        del auto[auto.index(flag) : auto.index(flag) + 2]
    main(auto)
    assert "only the run tells whether enough is left when a part is held out" in capsys.readouterr().out


def test_the_check_of_a_geometry_is_named_and_not_made(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("padis_jax.cli.geometry.check_geometry", None)
    args = arguments(scans, "--dry-run", "--measurement.check", "--workdir", tmp_path / "out")
    main(args)
    target = tmp_path / "out" / "geometry_corrected.json"
    assert f"would be checked, and a correction written to {target}" in capsys.readouterr().out
    main([*args, "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["correction"] == str(target)
    target.parent.mkdir()
    target.write_text("mine")
    assert "geometry_corrected.json" in refused(main, args, capsys)


def test_what_the_window_clips_of_the_image_is_said(tmp_path, capsys):
    hu = np.zeros((3, 16, 16), np.int16)
    hu[1, :4], hu[2, :8] = 3000, -2000
    np.savez(tmp_path / "v.npz", volume=hu, spacing=np.ones(3))
    weights = str(write_weights(tmp_path / "w.safetensors", window=HOUNSFIELD))
    for index, share in (("0", ""), ("1", "0.25"), ("2", "0.5")):
        flags = ["--image.path", str(tmp_path / "v.npz"), "--image.index", index, "--scan.bins", "32"]
        main(["--weights", weights, *flags, "--dry-run", "--workdir", str(tmp_path / "out")])
        note = f"note: {tmp_path / 'v.npz'}: slice {index}: {share} of the values lie outside -1000 to 1000 HU and are"
        assert (note in (said := capsys.readouterr().err)) == bool(share), said
        assert ("clipped" in said) == bool(share), said


@pytest.mark.parametrize(("solver", "gradient"), [("tmpd", True), ("dds", False)])
def test_the_plan_counts_the_gradient_of_a_method_that_takes_it(scans, tmp_path, monkeypatch, solver, gradient):
    told = []
    plan = sample.plan_sampling
    monkeypatch.setattr(sample, "plan_sampling", lambda *a, **k: told.append(k["gradient"]) or plan(*a, **k))
    base = arguments(scans, "--dry-run", "--quiet", "--workdir", tmp_path / "out")
    cut = base.index("--solver.cg-steps")
    main([*base[:cut], *base[cut + 2 :], "--solver", solver])
    assert told == [gradient]


@pytest.mark.parametrize("protocol", ["paper", "honest"])
def test_the_weight_of_total_variation_of_a_measured_scan_is_not_that_of_a_simulation(scans, protocol):
    """scan.protocol is a setting of simulated scans."""
    config = Experiment(scan=ScanConfig(protocol=protocol))
    config = dataclasses.replace(
        config, measurement=MeasurementConfig(str(scans / "scan.npy"), str(scans / "scan.json"))
    )
    assert kind_named(config) == "counts"
    weights = load_weights(scans / "w.safetensors")
    case = measured_case(config, load_scan(config.measurement), weights)
    assert case.kind == "counts" and tv_of(config, case.kind, case.problem).weight == tv_preset("counts").weight
