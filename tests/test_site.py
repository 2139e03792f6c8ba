"""The site: what `make docs` cannot see of itself, and the tutorials in their short form."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import padis_jax as pj
from padis_jax.problems.registry import PROBLEMS
from padis_jax.solvers.presets import preset, tv_preset

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


def test_settings_in_tutorials_are_the_presets():
    """Tutorials name what the presets would take, so that a reader sees numbers; they must follow the presets."""
    texts = {name: (DOCS / "tutorials" / f"{name}.nb.md").read_text() for name in TUTORIALS}
    counts, small, dds = (preset(*of) for of in (("pnp_admm", "counts"), ("pnp_admm", "small"), ("dds", "counts")))
    own, few = counts.settings, small.settings
    ladder = "sigma_max={0.sigma_max:g}", "sigma_min={0.sigma_min:g}"
    expected = {
        "sparse_view_ct": [
            f"PlugAndPlay(weight={own.weight:g}, power={own.power:g}, damping={own.damping:g}, "
            f"momentum={own.momentum:g}, averaging={own.averaging:g})",
            f"TV(weight={tv_preset('counts').weight:.1f}",
            *(word.format(counts) for word in ladder),
        ],
        "photographs": [
            f"PlugAndPlay(sigma={few.sigma:g}, weight={few.weight:g}, averaging={few.averaging:g})",
            f"TV(weight={tv_preset('small').weight:g})",
        ],
        "uncertainty": [word.format(dds) for word in ladder],
    }
    for name, words in expected.items():
        assert [word for word in words if word not in texts[name]] == []


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


def test_every_tutorial_opens_with_what_it_shows_and_how_long_it_takes():
    for name in TUTORIALS:
        opening = (DOCS / "tutorials" / f"{name}.nb.md").read_text().partition("```{code-cell}")[0]
        assert opening.index("**What it shows.** ") < opening.index("\n**How long.** ")
        assert re.search(r"\*\*How long\.\*\* .*\b(minutes?|seconds?)\b", opening)


def test_how_long_it_takes_is_no_part_of_what_has_run(monkeypatch, tmp_path):
    """Outputs stay when that line changes, and the page shows the new one; any other change loses them."""
    nbformat = pytest.importorskip("nbformat", reason="make test installs what the site needs")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    notebooks = pytest.importorskip("notebooks")
    monkeypatch.setattr(notebooks, "CACHE", tmp_path)
    text = "# A page\n\n**How long.** A minute.\n\n```{code-cell} ipython3\n1 + 1\n```\n"
    ran = notebooks.read(text)
    del ran.cells[1]  # the note that there are no outputs
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(ran, notebooks.executed(text))
    later = notebooks.read(text.replace("A minute", "An hour"))
    assert later.cells[1].outputs[0].text == "2" and "An hour" in later.cells[0].source
    assert not notebooks.executed(text.replace("1 + 1", "1 + 2")).exists()


def test_a_build_reads_tutorials_again_though_their_texts_stay(monkeypatch):
    """Outputs that were made after the first build are shown by the next."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    notebooks = pytest.importorskip("notebooks", reason="make test installs what the site needs")
    sources = {"gallery.nb": Path("gallery.nb.md"), "index": Path("index.md")}
    env = types.SimpleNamespace(found_docs=set(sources), doc2path=sources.get)
    assert notebooks.outdated(None, env, set(), set(), set()) == ["gallery.nb"]
