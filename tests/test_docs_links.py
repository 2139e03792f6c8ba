"""The documents name what there is: links, images, files and commands."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "weights/README.md", "data/README.md")  # no changelog
PAGES = [*(ROOT / name for name in TOP), *ROOT.glob("docs/**/*.md")]
FILE = r"\b(?:configs|data|docs|padis_jax|studies|tests|weights)/[\w./-]+\.(?:jsonl|json|md|npz|png|py|safetensors)\b"


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    text = request.param.read_text()
    return request.param, re.sub(r"\S*NAME\S*", "", text)  # of files that a reader is to write


def anchors(text):
    """Of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_and_images_exist(page):
    path, text = page
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_files_that_are_named_exist(page):
    path, text = page
    for name in re.findall(FILE, text):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


def test_commands_that_are_named_can_be_run(page):
    _, text = page
    for module in re.findall(r"python -m ((?:studies|padis_jax)[\w.]*\w)", text):
        spec = find_spec(module)
        assert spec is not None, module
        assert not spec.submodule_search_locations or find_spec(f"{module}.__main__"), module


def test_every_study_is_named_by_its_docstring_and_by_a_page():
    commands = {path: path.read_text() for path in (ROOT / "studies").rglob("*.py")}
    commands = {path: text for path, text in commands.items() if '__name__ == "__main__"' in text}
    assert len(commands) > 10
    for path, text in commands.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        assert f"python -m {module}" in text
        assert module == "studies.same_bits" or [p for p in PAGES if f"python -m {module}" in p.read_text()], module
