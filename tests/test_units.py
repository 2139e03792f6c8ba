"""A unit is printed where there is one, and never as "(1)" or "window 0 to 1 1"."""

import re

import jax.numpy as jnp
import matplotlib.text
import numpy as np
import pytest

from padis_jax.cli.data import main as data
from padis_jax.figures import comparison, maps
from padis_jax.images import HOUNSFIELD, PLAIN, ImageSet
from padis_jax.measurements.simulate import Measurement
from padis_jax.operators import Identity
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.outcome import Outcome
from padis_jax.runs.results import write_results
from padis_jax.runs.score import score, table
from padis_jax.window import Window
from padis_jax.writers import result, write_result

BARE = re.compile(r"\(1\)|\(1[,;]|\d 1\b|unit:? +1\b")


@pytest.mark.parametrize("window", [PLAIN, HOUNSFIELD])
def test_no_text_has_a_unit_of_one(window, tmp_path, capsys):
    truth = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16, 1)
    source = ImageSet(truth[None], ("x",), window)
    case = Case(Identity(image_shape=(16, 16)), Measurement(truth, jnp.zeros(truth.shape), "paper"), window, source,
                PROBLEMS["denoise"], truth)  # fmt: skip
    outcome = Outcome({"noisy": truth / 2}, [score("noisy", truth / 2, case)])
    write_results(tmp_path / "r", Experiment(), case, plan_of(Experiment(), case.kind), "", outcome)
    (picture,) = write_result(tmp_path / "result", "tiff", result(truth[None], source, "one", window=window))
    values = window.from_unit(truth[..., 0])
    np.savez(tmp_path / "images.npz", images=values, unit=window.unit, spacing=np.full(3, 0.5))
    data(["inspect", str(tmp_path / "images.npz")])
    texts = {
        "window": f"{window}; {window.named}",
        "table": table(outcome.rows, window.unit),
        "report": re.sub(r"base64,[^\"]*", "", (tmp_path / "r" / "report.html").read_text()),
        "picture": re.search(rb"one; [\x20-\x7e]*", picture.read_bytes())[0].decode(),
        "inspect": capsys.readouterr().out,
    }
    for figure in (comparison(truth, outcome.images, window=window), maps({"a": truth, "b": truth}, window=window)):
        labels = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
        texts[f"figure of {labels}"] = "\n".join(label for label in labels if re.search("[a-z]", label))
    assert not {name: text for name, text in texts.items() if BARE.search(text)}
    for name, text in texts.items():
        assert ("HU" in text) == (window == HOUNSFIELD), (name, text)
    assert str(window) in texts["inspect"] and str(Window("1", 0, 255)) == "0 to 255"
