"""What a mistyped value of a flag is told: one line with the flag, without the parser's own words."""

import subprocess
import sys

import pytest
from tiny import refused, write_weights

from padis_jax.benchmark.__main__ import main as benchmark
from padis_jax.benchmark.grid import Benchmark
from padis_jax.cli import convert, data, sample, train
from padis_jax.cli.arguments import refuse_empty
from padis_jax.cli.sample import main
from padis_jax.runs.config import Experiment


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--scan.views 0", "error: python sample.py: scan.views is 0: use at least 1, and at most 10^6"),
        ("--tv.weight 0", "tv.weight is 0: it must be positive and finite"),
        ("--tv.iterations 0", "tv.iterations is 0: use at least 1"),
        ("--scan.photons -1", "scan.photons is -1: it must be positive"),
        ("--scan.pixel-mm -1", "scan.pixel_mm is -1: it must not be negative"),
        ("--samples 1", "samples is 1: a deviation needs at least 2; give 0 for none"),
        ("--generate -1", "generate is -1: use at least 0"),
        ("--tilings 0", "tilings is 0: use at least 1"),
        ("--patch-batch -1", "patch_batch is -1: give patches per network call, 0 for all, or auto"),
        ("--noise 0.1", "--noise 0.1: belongs to a --problem; a scan without one has --scan.photons"),
        ("--noise -1 --problem deblur9", "--noise -1: give a standard deviation from 0 to"),
        ("--image.index 500", "data/head_ct.npz: there is no image 500 of 108, counted from 0 to 107: choose another"),
        ("--save-as jpg", "invalid choice 'jpg' for argument '--save-as'. Expected one of ('dicom',"),
        ("--image.resize 32", "got ['32'] for --image.resize {None}|{INT INT} scale the image"),
        ("--image.crop a b", "got ['a', 'b'] for --image.crop {None}|{INT INT} take the middle"),
        ("--scan.photons abc", "could not convert string to float: 'abc' for --scan.photons FLOAT"),
    ],
)
def test_one_line_names_the_flag(words, expected, capsys):
    error = refused(main, words.split(), capsys)
    assert expected.lower() in error.lower()
    for left in ("[bold]", "Value error", "For full helptext", "Error parsing", "Got errors"):
        assert left not in error


@pytest.mark.parametrize("program", ["sample", "train"])
def test_programs_start_as_modules_too(program):
    command = [sys.executable, "-m", f"padis_jax.cli.{program}", "--version"]
    assert "padis_jax" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


PATHS = {
    sample.main: ("config", "workdir", "weights", "image.path", "measurement.path", "measurement.geometry", "mask",
                  "measurements", "scan.geometry", "solver", "max-memory"),
    train.main: ("config", "workdir", "data.path", "run.start-weights", "data.test-volumes"),
    data.main: ("sheet", "unit"),
    convert.main: ("key", "unit"),
    benchmark: ("out", "ct"),
}  # fmt: skip


@pytest.mark.parametrize(("main", "flag"), [(main, flag) for main, flags in PATHS.items() for flag in flags])
@pytest.mark.parametrize("form", ["--{} ", "--{} \t", "--{}="])
def test_an_empty_value_is_refused_by_its_flag_and_nothing_is_written(main, flag, form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, _, value = form.format(flag).partition(" ")
    words = [name] if "=" in form else [name, value]
    expected = f"error: --{flag}: its value is empty; give one, or leave it out\n"
    assert refused(main, ["inspect", *words] if main is data.main else words, capsys) == expected
    assert not any(tmp_path.iterdir())


def test_an_empty_argument_is_refused_and_an_empty_value_that_the_help_explains_is_not(capsys):
    assert "an argument: its value is empty" in refused(data.main, ["inspect", ""], capsys)
    assert "an argument: its value is empty" in refused(convert.main, ["", "x"], capsys)
    refuse_empty(["--compute", "", "--image.path", "a"], Experiment)
    refuse_empty(["--weights", "", "--lines="], Benchmark)


@pytest.mark.parametrize("field", ["weights=''", "image=ImageConfig(path=' ')"])
def test_an_empty_path_of_a_config_file_is_named(field, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "image" in field:
        field += f", weights={str(write_weights(tmp_path / 'w.safetensors'))!r}"
    (tmp_path / "c.py").write_text(f"from padis_jax.experiment import *\nconfig = Experiment({field})\n")
    name = "--image.path" if "image" in field else "--weights"
    assert refused(sample.main, ["--config", "c.py"], capsys) == f"error: {name}: its value is empty; give one\n"
