"""What is printed or written as JSON is JSON: no NaN, no Infinity, ASCII."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import padis_jax
from padis_jax.cli import data
from padis_jax.errors import UserError
from padis_jax.files import json_text
from padis_jax.runs.training_log import Log
from padis_jax.serialization import parse_json

HASHED = {
    "benchmark/cells.py",
    "checkpoint.py",
    "lock.py",
    "runs/training_data.py",
}  # text that is hashed, or compared, and never parsed by others
OTHER = {"files.py", "weights.py", "runs/html_report.py", "runs/job.py"}


def strict(text):
    """What a reader by the standard makes of it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_what_is_no_number_is_null(number):
    value = {"a": number, "b": [number, 1.5], "c": np.array([number, 2.0]), "d": Path("x"), "é": "\udce9"}
    assert strict(json_text(value)) == {"a": None, "b": [None, 1.5], "c": [None, 2.0], "d": "x", "é": "\udce9"}
    assert json_text(value).isascii()


def test_a_field_that_is_there_twice_is_refused():
    with pytest.raises(UserError, match=r"^g.json: bins is there twice, as 8 and 9$"):
        parse_json('{"a": {"bins": 8, "b": 1, "bins": 9}}', "g.json")
    assert parse_json('[{"a": 1}, {"a": 2}]', "g.json") == [{"a": 1}, {"a": 2}]


def test_everything_goes_through_it():
    """Printed lines most of all: json.dumps would write NaN."""
    root = Path(padis_jax.__file__).parent
    users = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if re.search(r"json\.dumps?\(", path.read_text())
    }
    assert users <= HASHED | OTHER, users - HASHED - OTHER


def test_a_file_of_nothing_but_nan_is_inspected(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.full((8, 8), np.nan, np.float32))
    data.main(["inspect", str(tmp_path / "x.npy"), "--json"])
    assert strict(capsys.readouterr().out)["range"] is None


def test_the_log_of_a_training_that_diverges(tmp_path):
    with Log(tmp_path, 0, tensorboard=False) as log:
        log.write(1, loss=float("nan"), grad_norm=float("inf"))
    assert strict((tmp_path / "log.jsonl").read_text()) == {"step": 1, "loss": None, "grad_norm": None}
