"""A benchmark run that fails, stops, or does a part of the grid loses nothing, and its tables say what there is."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from tiny import write_weights

from padis_jax.benchmark import __main__, grid, work
from padis_jax.benchmark.__main__ import main
from padis_jax.benchmark.cells import Result
from padis_jax.benchmark.measure import Scene


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images, and a preset of one problem."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.uniform(size=(2, 16, 16)).astype(np.float32))
    monkeypatch.setitem(grid.PRESETS, "quick", grid.Preset(("ct8",), 2, 25, {}))
    monkeypatch.setattr("padis_jax.benchmark.methods.CLASSICAL", {})  # start and TV are enough
    return tmp_path


def arguments(folder, *more):
    flags = ("--ct", folder / "images.npy", "--weights", "", "--out", folder / "out")
    return [str(a) for a in (*flags, *more)]


def stand_in(monkeypatch, act=lambda cell: None):
    """Scenes and methods that compute nothing; `act` sees each cell first. Returns what was given to the cells."""
    given = []

    def run_cell(cell, *rest):
        act(cell)
        given.append((cell, *rest))
        place = {"problem": cell.problem, "method": cell.method, "image": cell.image, "seed": cell.seed}
        result = Result(cell.fingerprint, **place, config=dict(cell.config), psnr=20.0 + cell.seed, ssim=0.5,
                        residual=None, evaluations=0, seconds=1.0, compile_seconds=0.0, software="s")  # fmt: skip
        return result, np.zeros((16, 16, 1), np.float32)

    class Nothing(Scene):
        def __init__(self, problem, *rest):
            self.problem, self.case = problem, types.SimpleNamespace(operator=None)

    monkeypatch.setattr(work, "Scene", Nothing)
    monkeypatch.setattr(work, "run_cell", run_cell)
    return given


def stopped(argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return stop.value.code


def test_a_cell_that_fails_stops_no_other(folder, monkeypatch, capsys):
    errors = {
        0: jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffers:\n  a | b"),
        1: ValueError("no | such\nthing"),
        2: MemoryError(),
    }

    def act(cell):
        if cell.method == "tv":
            raise errors[cell.seed]

    with monkeypatch.context() as patch:
        stand_in(patch, act)
        assert stopped(arguments(folder, "--quiet", "--seeds", 0, 1, 2)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 6 of 12 cells failed: ct8/tv on images 0, seed 0: out of memory: RESOURCE")
    assert (
        said.count("\n") == 1 and "and 3 more" in said and "--patch-batch" in said and "rerun the same command" in said
    )
    table = (folder / "out" / "results.md").read_text()
    assert (
        "| tv | failed: out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes., failed: no / such thing"
        in table
    )
    assert "| start | 21.00 ± 0.89 |" in table and "Buffers" not in table
    row = json.loads((folder / "out" / "results.json").read_text())["table"][1]
    assert row["finished"] == 0 and len(row["failed"]) == 3
    with monkeypatch.context() as patch:  # nothing of them was written: the next run tries again
        given = stand_in(patch)
        main(arguments(folder, "--quiet", "--seeds", 0, 1, 2))
    assert [call[0].method for call in given] == ["tv"] * 6
    assert "failed" not in (folder / "out" / "results.md").read_text()


def test_a_problem_that_does_not_fit_the_images_stops_no_other(folder, capsys):
    np.save(folder / "images.npy", np.zeros((1, 12, 12), np.float32))
    only = ("--restore", "ct", "--only", "deblur17/start", "--only", "denoise/start")
    assert stopped(arguments(folder, "--quiet", *only)) == 2
    assert "1 of 2 cells failed: deblur17/start" in capsys.readouterr().err
    table = json.loads((folder / "out" / "results_only.json").read_text())["table"]
    assert [(row["finished"], len(row["failed"])) for row in table] == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    "error, code",
    [
        (jax.errors.JaxRuntimeError("INTERNAL: a defect"), jax.errors.JaxRuntimeError),
        (TypeError("a defect"), TypeError),
        (KeyboardInterrupt(), 130),
        (signal.SIGTERM, 143),
    ],
)
def test_the_tables_are_written_however_a_run_ends(folder, monkeypatch, capsys, request, error, code):
    def act(cell):
        if cell.method == "tv" and error == signal.SIGTERM:
            os.kill(os.getpid(), signal.SIGTERM)
        elif cell.method == "tv":
            raise error

    def unheard(*_):
        pytest.fail("SIGTERM would have ended the process without tables")

    usual = signal.signal(signal.SIGTERM, unheard)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, usual))
    stand_in(monkeypatch, act)
    if isinstance(code, int):
        assert stopped(arguments(folder, "--quiet")) == code
        said = capsys.readouterr().err
        assert "after 1 of 4 cells" in said and "rerun the same command to resume" in said and said.count("\n") == 1
        assert ("SIGTERM" in said) == (code == 143)
    else:
        with pytest.raises(code, match="a defect"):
            main(arguments(folder, "--quiet"))
    assert "| start | 20.00 (1 of 2 cells) |" in (folder / "out" / "results.md").read_text()
    assert (folder / "out" / "pictures" / "ct8.png").exists()
    assert signal.getsignal(signal.SIGTERM) is unheard


@pytest.mark.parametrize("code, torn", [(143, False), (130, False), (2, True)])
def test_an_interrupted_process_ends_without_teardown(code, torn):
    program = (
        "import atexit\nfrom padis_jax.benchmark.termination import without_teardown\n"
        "atexit.register(print, 'torn down')\nwith without_teardown():\n"
        f"    print('said')\n    raise SystemExit({code})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == code and ended.stdout == "said\n" + "torn down\n" * torn, ended


def test_the_command_ends_so_after_ctrl_c(folder):
    program = (
        "import atexit, runpy, sys\nfrom padis_jax.benchmark import work\n"
        "def run(*_, **__):\n    raise KeyboardInterrupt\n"
        "work.run = run\natexit.register(print, 'torn down')\n"
        "runpy.run_module('padis_jax.benchmark', run_name='__main__', alter_sys=True)"
    )
    argv = [sys.executable, "-c", program, *arguments(folder, "--only", "ct8/start")]
    ended = subprocess.run(argv, capture_output=True, text=True)
    assert ended.returncode == 130 and "interrupted after 0 of 1 cells" in ended.stderr, ended.stderr
    assert "torn down" not in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_run(tmp_path, number, code):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(size=(1, 64, 64)).astype(np.float32))
    weights = write_weights(tmp_path / "prior.safetensors", image_shape=(64, 64))
    flags = ("--only", "ct8/tv", "--only", "ct8/dds", "--evaluations", 299, "--ct", tmp_path / "images.npy")
    argv = ["-m", "padis_jax.benchmark", *flags, "--weights", weights, "--out", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, *map(str, argv)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.rglob("cells/ct8/tv/*.json")):
        time.sleep(0.1)
    time.sleep(1)  # in the compilation or the steps of DDS
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == code and "after 1 of 2 cells" in said, (process.returncode, said)
    assert "| dds | not run yet |" in (tmp_path / "out" / "results_only.md").read_text()


def test_a_full_disk_at_the_end_does_not_hide_what_ended_the_run(folder, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space left")

    def act(cell):
        raise TypeError("a defect")

    stand_in(monkeypatch, act)
    monkeypatch.setattr(__main__, "summarise", fail)
    with pytest.raises(TypeError, match="a defect"):
        main(arguments(folder, "--quiet"))
    assert "the tables could not be written: no space left" in capsys.readouterr().err


def test_each_seed_of_the_first_image_can_be_shown(folder, monkeypatch, capsys):
    given = stand_in(monkeypatch)
    main(arguments(folder, "--quiet", "--seeds", 0, 1))
    assert len(given) == 8
    main(arguments(folder, "--quiet", "--seeds", 1))
    assert len(given) == 8 and "damaged" not in capsys.readouterr().err
    kept = [path for path in folder.rglob("*.npy") if "cells" in path.parts]
    assert len(kept) == 4  # two methods with two seeds on the first of two images


def test_a_part_of_the_grid_leaves_the_tables_of_the_whole(folder, monkeypatch, capsys):
    stand_in(monkeypatch)
    main(arguments(folder))
    assert "pictures/ written\n" in capsys.readouterr().out
    names = ("results.md", "results.json", "pictures/ct8.png")
    whole = {name: (folder / "out" / name).read_bytes() for name in names}
    main(arguments(folder, "--only", "ct8/start"))
    said = capsys.readouterr().out
    assert "results_only.md, results_only.json and pictures_only/ written" in said and "whole grid stay" in said
    assert whole == {name: (folder / "out" / name).read_bytes() for name in names}
    assert len(json.loads((folder / "out" / "results_only.json").read_text())["table"]) == 1
    assert (folder / "out" / "pictures_only" / "ct8.png").exists()
    with pytest.raises(SystemExit):
        main(["--help-all"])
    assert capsys.readouterr().out.count("results_only.md") == 2  # what it does, and of the flag


def test_a_resumed_run_has_the_tables_of_the_first(folder):
    np.save(folder / "images.npy", np.stack([np.load(folder / "images.npy")[0], np.zeros((16, 16), np.float32)]))
    tables = []
    for _ in range(2):  # the second image is dark: y = 0, and FBP gets it exactly
        main(arguments(folder, "--quiet", "--only", "ct8/start"))
        tables.append([(folder / "out" / f"results_only.{end}").read_text() for end in ("md", "json")])
    assert tables[0] == tables[1]
    cells = json.loads(tables[0][1])["cells"]
    assert cells[1]["psnr"] == 150 and cells[1]["residual"] == 0 and "diverged" not in tables[0][0]


def test_patches_per_call_save_memory_and_compute_nothing_else(folder, monkeypatch):
    weights = write_weights(folder / "prior.safetensors")
    given = stand_in(monkeypatch)
    argv = (*arguments(folder, "--quiet", "--images", 1), "--weights", str(weights), "--only", "ct8/dds")
    main([*argv, "--patch-batch", "3"])
    assert [call[-1] for call in given] == [3]
    main(argv)
    assert len(given) == 1  # the same cell
