"""--help of every program is a page that can be read and pasted; --help-all has every flag."""

import dataclasses
import re
import shlex

import jax
import numpy as np
import pytest
from test_registry import toy  # noqa: F401 (a fixture)
from tiny import CONFIG, refused

import padis_jax
from padis_jax.benchmark.__main__ import main as benchmark
from padis_jax.cli import convert, data, sample, train
from padis_jax.cli.arguments import split_args, split_output_options
from padis_jax.cli.commands import called_as, sample_command
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.config import DataConfig
from padis_jax.runs.config import Experiment
from padis_jax.solvers.registry import METHODS

PROGRAMS = {
    "python sample.py": sample.main,
    "python train.py": train.main,
    "padis-convert": convert.main,
    "padis-data": data.main,
    "python -m padis_jax.benchmark": benchmark,
}


def printed(main, capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_a_page(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sample.py"])
    page = printed(PROGRAMS[name], capsys, "--help")
    lines = page.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 100, (len(lines), max(lines, key=len))
    assert lines[2] == f"Usage: {name} [FLAGS], for example" and lines[3].startswith(f"    {name}")
    assert lines[-1] == f"All flags: {name} --help-all" and lines[-2].startswith("Exit codes: 0 done, 2 ")
    assert " ..." not in page.replace("N...", "")  # no sentence is cut
    assert page == printed(PROGRAMS[name], capsys, "-h")


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_all_has_the_flags_of_help(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sample.py"])

    def flags(text):
        return set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text))

    page, everything = (printed(PROGRAMS[name], capsys, flag) for flag in ("--help", "--help-all"))
    known = flags(re.sub(r"\x1b\[[0-9;]*m", "", everything)) | {"--help-all"}
    assert flags(page) <= known, flags(page) - known
    assert everything.count("\n") > page.count("\n") or "padis-data" in name


def test_version(capsys):
    for main in PROGRAMS.values():
        assert printed(main, capsys, "--version") == f"padis_jax {padis_jax.__version__}, jax {jax.__version__}\n"


def test_a_new_method_stands_in_the_help(toy, capsys):  # noqa: F811
    page = printed(sample.main, capsys, "--help")
    assert re.search(r"^  toy +Toy: goes to D$", page, re.MULTILINE) and len(page.splitlines()) <= 60
    assert not [name for name, row in METHODS.items() if f"{row.label}: {row.text}\n" not in page]
    others = printed(sample.main, capsys, "--solver", "dps", "--help-all").split("Settings of the other solvers")[1]
    assert re.search(r"^  toy +pull$", others, re.MULTILINE) and not re.search(r"^  dps ", others, re.MULTILINE)


def test_the_examples_of_sample_are_accepted(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["padis-sample"])
    page = re.sub(r"\\\n +", "", printed(sample.main, capsys, "--help"))
    examples = [line[4:].split("   ")[0] for line in page.splitlines() if line.startswith("    padis-sample")]
    assert len(examples) == 8
    for example in examples:
        _, rest = split_output_options(shlex.split(example.split("  ")[0])[1:])
        parse_experiment(split_args(rest)[2], default=Experiment(), prog="p", description="")


@pytest.mark.parametrize(
    ("argv0", "sampled", "converted"),
    [
        ("sample.py", "python sample.py", "padis-convert"),
        ("/data/padis jax/train.py", "python '/data/padis jax/sample.py'", "padis-convert"),
        ("/nowhere/bin/padis-train", "/nowhere/bin/padis-sample", "/nowhere/bin/padis-convert"),
        ("/lib/padis_jax/cli/convert.py", "padis-sample", "python -m padis_jax.cli.convert"),
        ("/lib/pytest/__main__.py", "padis-sample", "padis-convert"),
    ],
)
def test_programs_are_named_as_they_are_called(argv0, sampled, converted, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", [argv0])
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert (called_as("sample"), called_as("convert")) == (sampled, converted)
    (tmp_path / "sample.py").touch()
    monkeypatch.setattr("sys.argv", ["-c"])
    assert called_as("sample") == "python sample.py"


def test_errors_and_help_name_the_program_as_it_was_called(capsys, monkeypatch, tmp_path):
    (tmp_path / "padis-sample").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "padis-sample")])
    assert refused(sample.main, ["--weigths", "x"], capsys).startswith("error: padis-sample: Unrecognized options: ")
    assert "python" not in printed(sample.main, capsys, "--help")
    assert "usage: padis-sample" in printed(sample.main, capsys, "--help-all")


def test_the_hint_after_training_can_be_pasted(tmp_path, monkeypatch):
    """It names an image, a held-out one if there is any, and asks for nothing that the images do not have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    np.save("my images.npy", np.zeros((3, 16, 16), np.float32))
    np.savez("scan.npz", volume=np.zeros((3, 16, 16), np.int16), spacing=np.ones(3))

    def hint(path, channels=1, **held_out):
        network = dataclasses.replace(CONFIG.network, image_channels=channels)
        config = dataclasses.replace(CONFIG, network=network, data=DataConfig(path, **held_out))
        return sample_command("a run/w.safetensors", config)

    start = "python sample.py --weights 'a run/w.safetensors' --image.path "
    assert hint("my images.npy") == f"{start}'my images.npy' --image.index 0 --scan.protocol paper"
    assert hint("scan.npz", test=(2,), validation=(1,)) == f"{start}scan.npz --image.index 2"
    assert hint("gone.npz", validation=(1,)) == f"{start}gone.npz --image.index 1 --scan.protocol paper"
    assert hint("colour.npy", channels=3) == f"{start}colour.npy --image.index 0 --problem deblur9"
    monkeypatch.setattr("sys.argv", ["/nowhere/padis-train"])
    words = shlex.split(hint("my images.npy"))
    assert words[0].endswith("padis-sample")
    parse_experiment(words[1:], default=Experiment(), prog="p", description="")
