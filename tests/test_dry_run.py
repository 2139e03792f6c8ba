"""--dry-run builds the case of the run with the same checks: what the run refuses, the dry run refuses likewise."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import test_cli_problem
import test_cli_sample
from jax import monitoring
from small_scan import arguments, write_scan
from test_cli_problem import folder as problems  # noqa: F401 (a fixture)
from test_cli_sample import folder as images  # noqa: F401 (a fixture)
from tiny import NETWORK, refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD
from padis_jax.runs import case


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
    at = args.index("--measurement.path")
    folder = ["--measurements", str(scans / "many"), *args[:at], *args[at + 2 :]]
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


def test_the_solver_is_traced_and_not_compiled(images, tmp_path, capsys, monkeypatch):  # noqa: F811
    """The network runs in no compiled program, and nothing is measured; what is compiled makes the operator's norm."""
    events, traced, measure = [], [], case.measure_image

    def watched(problem, key, image, **options):
        traced.append(isinstance(image, jax.core.Tracer))
        return measure(problem, key, image, **options)

    monkeypatch.setattr(case, "measure_image", watched)
    monitoring.register_event_duration_secs_listener(lambda event, *a, **k: events.append(event))
    args = test_cli_sample._arguments(images, tmp_path / "out", "--dry-run", "--json")
    main(args)
    events.clear()
    jax.clear_caches()
    main(args)
    compiled = [event for event in events if event.endswith("backend_compile_duration")]
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert traced and all(traced) and len(compiled) < 40
    assert plan["evaluations"] == 3 and plan["bytes"] > 0 and plan.get("seconds") is None


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
