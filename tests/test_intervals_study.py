"""studies.intervals: what it takes of tables, and that all of it is drawn."""

import pytest
from tiny import refused

from studies.intervals import entries, figure, main

PAGE = """# A page
| pair | way | PSNR | less plain (dB, 95 %) |
|---|---|---|---|
| a | plain | 33.1 |  |
| a | longer | 32.0 | -1.18 (-1.53 to -0.96) |
| b | longer | 32.0 | +0.2 |

### brain, sr4

| method | less plain (dB, 95 %) |
|---|---|
| tv | 0.50 (0.40 to 0.60) |

| method | other |
|---|---|
| tv | 1.0 |
"""


def test_values_of_the_column_with_what_they_are_of():
    assert entries(PAGE, "less plain") == [
        ("", "a", "longer", -1.18, -1.53, -0.96),
        ("", "b", "longer", 0.2, None, None),
        ("brain", "sr4", "tv", 0.5, 0.4, 0.6),
    ]


def test_every_value_is_drawn():
    drawn = figure(entries(PAGE, "less plain"), "less plain")
    assert [ax.get_title() for ax in drawn.axes] == ["", "brain"]
    points = [sorted(c.lines[0].get_xdata()[0] for c in ax.containers) for ax in drawn.axes]
    assert points == [[-1.18, 0.2], [0.5]]


@pytest.mark.parametrize(("column", "message"), [("less plain", "no such file"), ("nothing", "no table has values")])
def test_mistakes_are_one_line(tmp_path, capsys, column, message):
    page = tmp_path / "page.md"
    if column == "nothing":
        page.write_text(PAGE)
    assert message in refused(main, [page, "--column", column, "--out", tmp_path / "x.png"], capsys)
