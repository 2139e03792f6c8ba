"""Flags that a run would not look at are refused; what a config file says for other runs is not."""

import pytest
from tiny import refused

from padis_jax.cli import train
from padis_jax.cli.sample import main
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig


def _parsed(words, default=None):
    return parse_experiment(words.split(), default=default or Experiment(), prog="sample.py", description="")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--measurement.path y.npz --scan.views 40", "--scan.views: y.npz was measured"),
        ("--measurement.path y.npz --scan.protocol paper", "--scan.protocol: y.npz was measured"),
        ("--measurement.path y.npz --image.path x.npy", "--image.path: y.npz was measured"),
        ("--measurement.path y.npz --image.crop 8 8", "--image.crop: y.npz was measured"),
        ("--measurements nowhere --image.grey", "--image.grey: the files of nowhere were measured"),
        ("--measurements there --scan.views 40", "--scan.views: the files of there were measured"),
        ("--measurements here --scan.pixel-mm 2", "--scan.pixel-mm: the files of here were measured"),
        ("--measurements here --measurement.geometry g.json --scan.bins 9", "--scan.bins: the files of here were"),
        ("--generate 2 --scan.photons 10", "--scan.photons: --generate draws from the prior alone"),
        ("--generate 2 --image.resize 8 8", "--image.resize: --generate draws"),
        ("--generate 2 --tv.weight 3", "--tv.weight: --generate draws"),
        ("--problem deblur9 --scan.photons 10", "--scan.photons: --problem deblur9 is no scan"),
        ("--problem inpaint --mask m.png --scan.pixel-mm 2", "--scan.pixel-mm: --problem inpaint is no scan"),
        ("--scan.protocol paper --scan.photons 10", "--scan.photons: --scan.protocol paper has no noise"),
        ("--overlap 4", "--overlap: patches of --tiling random do not overlap"),
        ("--generate-levels 40", "--generate-levels: belongs to --generate N"),
        ("--batch 4", "--batch: is of --measurements, and of slices that are solved one by one"),
    ],
)
def test_a_flag_that_nothing_looks_at_is_refused(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, file in (("here", "y.npz"), ("there", "y.mat")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    error = refused(main, words.split(), capsys)
    assert says in error and error.endswith("; leave it out\n")


@pytest.mark.parametrize(
    "words",
    [
        "--measurement.path y.npz --image.index 7",  # of the run's random keys
        "--measurements here --scan.views 40 --scan.bins 99",  # of its sinograms
        "--problem ct20 --scan.photons 10",
        "--problem deblur9 --scan.protocol paper",
        "--scan.protocol paper --scan.pixel-mm 2",  # square pixels
        "--tiling overlap_average --overlap 4",
        "--generate 2 --generate-levels 40",
        "--image.index 4:9 --batch 2",
        "--measurements here --batch 2",
        "--measurement.path y.npz --scan.views 20",  # the default
    ],
)
def test_a_flag_that_a_run_looks_at_is_not(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "y.npz").touch()
    assert isinstance(_parsed(words), Experiment)


def test_a_config_file_serves_other_runs_too():
    config = Experiment(image=ImageConfig(path="x.npy", crop=(8, 8)), scan=ScanConfig(views=40), generate_levels=40)
    for words in ("--measurement.path y.npz", "--generate 2", "--problem deblur9"):
        if "problem" in words:
            config = Experiment(scan=ScanConfig(photons=10.0))
        assert _parsed(words, config).scan == config.scan


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--data.unit HU", "--data.unit: is that of --data.low and --data.high, which are not given; leave it out"),
        ("--data.test-gap 2", "--data.test-gap: is that of --data.test, which holds nothing out; leave it out"),
        ("--data.validation-gap 1", "--data.validation-gap: is that of --data.validation, which holds nothing out"),
        ("--run.validate-every 9", "--run.validate-every: no slice is held out to validate with"),
    ],
)
def test_a_flag_of_train_that_nothing_looks_at_is_refused(flags, says, tmp_path, capsys):
    (tmp_path / "c.py").write_text("from padis_jax.config import Config\nconfig = Config()\n")
    start = ["--config", tmp_path / "c.py", "--workdir", tmp_path / "w"]
    assert says in refused(train.main, [*start, *flags.split()], capsys)
    others = "--data.low 0 --data.high 1 --data.test 3 --data.validation 5".split()
    assert "data.path is empty" in refused(train.main, [*start, *flags.split(), *others], capsys)
    (tmp_path / "c.py").write_text(
        "from padis_jax.config import Config, DataConfig\nconfig = Config(DataConfig(unit='HU', test_gap=2))\n"
    )
    assert "data.path is empty" in refused(train.main, start, capsys)
    assert not (tmp_path / "w").exists()
