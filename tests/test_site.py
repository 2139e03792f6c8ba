"""The site: what `make docs` cannot see of itself, and the tutorials in their short form."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import padis_jax as pj
from padis_jax.problems.registry import PROBLEMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
QUICK = ("own_operator", "uncertainty")
TUTORIALS = sorted(path.name.removesuffix(".nb.md") for path in (DOCS / "tutorials").glob("*.nb.md"))


def test_every_public_name_has_one_place_in_the_reference():
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = re.findall(r"^\.\. auto(?:function|class):: padis_jax\.(\w+)$", pages, re.MULTILINE)
    assert sorted(named) == sorted(pj.__all__)


def test_the_gallery_has_every_named_problem_with_its_command():
    text = (DOCS / "gallery.nb.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(PROBLEMS)
    assert re.findall(r"^    python sample.py --problem (\w+)", text, re.MULTILINE) == list(PROBLEMS)


def test_every_tutorial_is_listed():
    listed = re.findall(r"^(\w+)\.nb$", (DOCS / "tutorials/index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == TUTORIALS


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder where one tutorial finds what another has compiled."""
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TUTORIALS]
)
def test_a_tutorial_runs_in_its_short_form(name, compiled):
    pytest.importorskip("nbclient", reason="make test installs what the site needs")
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled), "MPLBACKEND": "agg"}
    command = [sys.executable, str(DOCS / "run.py"), "--short", f"{name}.nb"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
