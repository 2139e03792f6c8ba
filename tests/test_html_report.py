"""The page of a run: complete, alone, and with nothing from outside taken for HTML."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from padis_jax.runs.html_report import report_html, write_report


def png(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def page(**change):
    contents = dict(
        pictures={"a < b": png(7), "second": png(9)},
        rows=[{"method": "<script>", "psnr": 30.123456, "n": 3, "<i>": 1}, {"method": "TV", "psnr": None, "n": 0}],
        settings={"path": "x & </pre>", "solver": {"levels": 3}},
        notes=["in HU"],
    )
    return report_html("run <1>", **(contents | change))


def test_everything_is_on_the_page_and_escaped():
    text = page()
    assert "<h1>run &lt;1&gt;</h1>" in text and "<td>&lt;script&gt;</td><td>30.123</td><td>3</td>" in text
    assert "<th>&lt;i&gt;</th>" in text
    assert "<td>TV</td><td></td><td>0</td>" in text and "<p>in HU</p>" in text
    assert "x &amp; &lt;/pre&gt;" in text and "&quot;levels&quot;: 3" in text and "<script" not in text


def test_warnings_come_first_and_settings_are_folded():
    text = page(warnings=["TV < prior"], rows=[{"method": "TV", "residual": "0.1"}])
    order = ["<h1>", '<p class="warning"><strong>Warning:</strong> TV &lt; prior.</p>', "Not for diagnosis", "<table>"]
    order += ["residual: ||y - A x||", "<figure>", "<details><summary>Settings</summary>", "<pre>", "</details>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert 'class="warning"' not in page() and "residual:" not in page()


def test_pictures_to_step_through():
    text = page(pictures={}, steps={"one": png(1), "two & a half": png(2), "three": png(3)})
    shown = re.findall(r'<img src="data:[^"]*" alt="([^"]*)"( hidden)?>', text.split('class="steps"')[1])
    assert shown == [("one", " hidden"), ("two &amp; a half", ""), ("three", " hidden")]
    assert text.count("<script>") == 1 and 'type="range" min="0" max="2" value="1"' in text


def test_the_pictures_are_inside_and_nothing_is_loaded():
    class Sources(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(value for name, value in attributes if name in ("src", "href"))

    found = []
    Sources().feed(page())
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in found] == [png(7), png(9)]
    assert not re.search(r"https?:|url\(|@import", page())


def test_it_is_written_atomically_and_only_pngs_are_taken(tmp_path, no_temporary_files):
    with pytest.raises(ValueError, match="picture 'x' is no PNG"):
        write_report(tmp_path / "r.html", "x", pictures={"x": b"<svg>"}, rows=[], settings={})
    assert not list(tmp_path.iterdir())
    write_report(tmp_path / "r.html", "x", pictures={}, rows=[], settings={})
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
