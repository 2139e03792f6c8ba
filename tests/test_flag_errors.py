"""What a mistyped value of a flag is told: one line with the flag, without the parser's own words."""

import subprocess
import sys

import pytest
from tiny import refused

from padis_jax.cli.sample import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--scan.views 0", "error: python sample.py: scan: views 0 and bins 512 must be at least 1"),
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
