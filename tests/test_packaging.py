"""The package's metadata, lock and notices agree with each other and with the code."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import padis_jax


@pytest.fixture(scope="module")
def root(request):
    return request.config.rootpath


@pytest.fixture(scope="module")
def setup(root):
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    return parser


def locked(root):
    """name -> [(version, marker)] of requirements.lock."""
    found = {}
    for line in (root / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, version, marker = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; (.+))?", line).groups()
            found.setdefault(name, []).append((version, marker or ""))
    return found


def requirement_names(text):
    return {re.match(r"[\w-]+", line.strip()).group() for line in text.splitlines() if line.strip()}


def test_one_version(root, setup):
    assert setup["metadata"]["version"] == "attr: padis_jax.__version__"
    assert f"version: {padis_jax.__version__}\n" in (root / "CITATION.cff").read_text()
    assert f"## [{padis_jax.__version__}]" in (root / "CHANGELOG.md").read_text()


def test_metadata_are_in_setup_cfg_alone(root):
    lines = [line for line in (root / "pyproject.toml").read_text().splitlines() if line]
    assert lines[0] == "[build-system]" and len(lines) == 3  # a [project] table would hide setup.cfg


def test_the_lock_has_no_address_and_no_accelerator(root):
    text = (root / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|--|@|\.(com|org|net)\b", text.replace("#    make lock", ""))
    assert not [name for name in locked(root) if re.search("nvidia|cuda|libtpu|rocm", name)]


def test_the_lock_holds_a_sound_jax_for_each_python(root):
    jaxes = dict((marker, version) for version, marker in locked(root)["jax"])
    assert jaxes["python_full_version < '3.12'"] == "0.10.1"
    assert jaxes["python_full_version >= '3.12'"].startswith("0.12.")
    assert locked(root)["jaxlib"] == locked(root)["jax"]


def test_the_lock_covers_every_requirement(root, setup):
    wanted = requirement_names(setup["options"]["install_requires"])
    wanted |= requirement_names(setup["options.extras_require"]["dev"])
    assert {name.lower().replace("_", "-") for name in wanted} <= set(locked(root))


def test_unsound_jax_releases_are_excluded(setup):
    assert "jax>=0.10,!=0.10.2,!=0.11.0,<0.13" in setup["options"]["install_requires"].split()
    assert jax.__version__ not in ("0.10.2", "0.11.0")


def test_extras_are_what_is_asked_for_by_name(root, setup):
    """Every optional library that `guard.library` imports is in the extra that it names, and the other way round."""
    names = {"png": "pypng"}
    asked = set()
    for path in (root / "padis_jax").rglob("*.py"):
        asked |= set(re.findall(r'\blibrary\("(\w+)", "(\w+)"', path.read_text()))
    assert len(asked) >= 4
    for extra in {extra for _, extra in asked}:
        wanted = {names.get(module, module) for module, of in asked if of == extra}
        assert wanted == requirement_names(setup["options.extras_require"][extra])


def test_extras_have_one_name(setup):
    """No extra is a part of another, but of what developers install."""
    extras = {name: requirement_names(text) for name, text in setup["options.extras_require"].items() if name != "dev"}
    within = [(a, b) for a in extras for b in extras if a != b and extras[a] <= extras[b] and "jax" not in extras[a]]
    assert within == []


def test_requirements_are_what_is_imported(root, setup):
    """No requirement that nothing imports, and no import that nothing requires."""
    imported = set()
    for path in (root / "padis_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    names = {"PIL": "pillow", "orbax": "orbax-checkpoint", "tensorboardX": None, "padis_jax": None}
    third = {names.get(name, name) for name in imported - set(sys.stdlib_module_names)} - {None}
    assert third == requirement_names(setup["options"]["install_requires"])


def test_import_leaves_scripts_and_plots_alone():
    """A user's program that calls the library gets neither the command line parser nor pyplot."""
    code = "import sys, padis_jax; print(sorted({'tyro', 'matplotlib.pyplot', 'tensorboardX'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_data_and_weights_stay_outside_the_package_with_their_notice(root, setup):
    inside = [path for path in (root / "padis_jax").rglob("*") if path.suffix in (".npz", ".npy", ".safetensors")]
    assert [path.name for path in inside] == ["photos.safetensors"] and inside[0].stat().st_size < 8e6
    assert "CC-BY-4.0" in inside[0].with_name("README.md").read_text()
    assert (
        setup["options.package_data"]["padis_jax"].split() == ["py.typed", "priors/*"]
        and (root / "padis_jax" / "py.typed").exists()
    )
    assert "Version 2, June 1991" in (root / "data" / "COPYING").read_text()
    assert "Apache License" in (root / "LICENSE").read_text()
    for notice in ("data/README.md", "weights/README.md"):
        words = " ".join((root / notice).read_text().split())
        assert "InVesalius" in words or "data/README.md" in words
        assert re.search("not for clinical use", words, re.IGNORECASE)
    with np.load(root / "data" / "head_ct.npz") as archive:
        assert archive["volume"].dtype == np.int16


def test_every_module_is_in_an_importable_package(root):
    folders = {path.parent for path in (root / "padis_jax").rglob("*.py")}
    assert not [folder.name for folder in folders if not (folder / "__init__.py").exists()]


def test_every_command_of_the_readme_has_a_make_target(root):
    makefile, readme = (root / "Makefile").read_text(), root / "README.md"
    named = set(re.findall(r"\bmake ([a-z]+)\b", (root / ".ci" / "run").read_text()))
    named |= set(re.findall(r"`make ([a-z]+)`", readme.read_text())) if readme.exists() else set()
    assert "test" in named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
