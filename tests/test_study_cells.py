"""Finished pieces of studies: taken where they depend on the same, run again where they do not."""

import argparse
from typing import NamedTuple

import numpy as np
import pytest
from tiny import write_weights

from padis_jax.benchmark.data import Pictures
from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.images import PLAIN
from padis_jax.solvers.presets import preset
from studies import adaptation, evaluations, other_data
from studies.cells import belongs, kept, known, measure, read
from studies.other_images import Images
from studies.schedule import cells as schedule_cells
from studies.tasks import settings


def test_a_row_is_run_once_and_again_when_it_depends_on_another_thing(tmp_path):
    path, runs = tmp_path / "a" / "cell.json", []

    def run():
        runs.append(1)
        return {"error": float(len(runs))}

    assert known(path, {"n": (1, 2)}) is None
    assert [kept(path, {"n": n}, run)["error"] for n in ((1, 2), (1, 2), (3,))] == [1, 1, 2]
    assert known(path, {"n": (1, 2)}) is None and known(path, {"n": [3]}) == {"error": 2.0}


class Cell(NamedTuple):
    """Of a grid of two numbers."""

    a: int
    b: float = 0.5

    @property
    def name(self):
        return f"{self.a}_{self.b:g}.json"


def test_a_grid_resumes_and_says_what_is_missing(tmp_path, capsys):
    ran = []

    def run(cell):
        ran.append(cell)
        return {"psnr": 20.0 + cell.a, "seconds": 6.0}

    grid = [Cell(a) for a in range(4)]
    measure(grid, tmp_path, run, lambda cell: 3, desc="cells", most=1)
    measure(grid, tmp_path, run, lambda cell: 3, desc="cells")
    assert ran == grid
    said = capsys.readouterr().out
    assert "4 cells to run, 12 evaluations\n" in said and "3 cells to run, 9 evaluations, 2.0 s each" in said
    assert {cell: values["psnr"] for cell, values in read(tmp_path, Cell).items()} == {c: 20 + c.a for c in grid}
    lines = tmp_path / "cells.jsonl"
    lines.write_text("".join(file.read_text().replace("\n", " ") + "\n" for file in (tmp_path / "cells").iterdir()))
    assert read(lines, Cell) == read(tmp_path, Cell)
    with pytest.raises(UserError, match="none.jsonl: no such file"):
        read(tmp_path / "none.jsonl", Cell)
    measure(grid, tmp_path, run, lambda cell: 3, desc="cells")
    assert len(ran) == 4 and "no cell is missing" in capsys.readouterr().out


def test_a_folder_that_takes_no_file_is_refused_before_the_work(tmp_path):
    def run(*args):
        raise AssertionError("the work began")

    (tmp_path / "out").write_text("precious")
    for out in (tmp_path / "out", tmp_path / "out" / "deep"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            belongs(out, {})
        with pytest.raises(UserError, match="is a file, not a folder"):
            measure([Cell(1)], out, run, lambda cell: 3, desc="cells")
        with pytest.raises(UserError, match="is a file, not a folder"):
            kept(out / "row.json", {}, run)


@pytest.fixture
def images():
    array = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
    return Images(Pictures("made", array, ("a", "b", "c"), (0, 1, 2), PLAIN, total=3), ("a", "b", "c"))


def changed(images):
    return Images(images.pictures._replace(images=images.pictures.images * 0.5), images.groups)


def test_images_of_other_data_depend_on_weights_evaluations_and_values(tmp_path, images):
    one, two = (str(write_weights(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in (0, 1))
    args = argparse.Namespace(out=tmp_path, photos_weights=one, head_weights=one, evaluations=25, images=0)
    field = other_data.Field("brain", "ct20", "dds", "head")
    path = other_data.place(tmp_path, field, "b", 0)
    kept(path, other_data.described(args, field, images, 1), lambda: {"psnr": 30.0})

    def found(of=images, **other):
        return other_data.finished(argparse.Namespace(**{**vars(args), **other}), field, of, 1, 0)

    assert found() == {"psnr": 30.0} == found(photos_weights=two)
    assert found(head_weights=two) is None and found(evaluations=50) is None and found(changed(images)) is None


def test_images_of_adaptation_depend_on_weights_and_values(tmp_path, images):
    one, two = (str(write_weights(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in (0, 1))
    args = argparse.Namespace(
        out=tmp_path, photos_weights=one, head_weights=one, levels=2, steps=1, learning_rate=0.1, patch_batch=9, seed=0
    )
    job = ("brain_head", "plain", 2)
    about = adaptation.described(args, images, "brain_head", 2)
    kept(adaptation.place(args, images, *job), about, lambda: {"psnr": 30.0})

    def found(of=images, **other):
        return adaptation.finished(argparse.Namespace(**{**vars(args), **other}), of, *job)

    assert found() == {"psnr": 30.0} == found(photos_weights=two)
    assert all(other is None for other in (found(head_weights=two), found(steps=2), found(changed(images))))
    assert found(patch_batch=3) is None


def test_a_folder_holds_cells_of_one_setting(tmp_path):
    belongs(tmp_path, {"weights": "a", "presets": {"dds": 1}})
    belongs(tmp_path, {"weights": "a", "presets": {"dds": 1}})
    with pytest.raises(UserError, match="its cells are of other presets; take another --out"):
        belongs(tmp_path, {"weights": "a", "presets": {"dds": 2}})
    old = tmp_path / "old"
    write_json(old / "cells" / "a.json", {})
    with pytest.raises(UserError, match="its cells are of other weights"):
        belongs(old, {"weights": "a"})


@pytest.mark.parametrize("study", ["schedule", "evaluations"])
def test_a_grid_of_before_a_preset_changed_is_not_gone_on_with(tmp_path, monkeypatch, study):
    grid = {"schedule": schedule_cells, "evaluations": evaluations}[study]
    monkeypatch.setattr(grid, "settings", lambda: {"presets": 1})
    grid.measure([], tmp_path)
    monkeypatch.setattr(grid, "settings", lambda: {"presets": 2})
    with pytest.raises(UserError, match="its cells are of other presets"):
        grid.measure([], tmp_path)


def test_settings_of_tasks_name_weights_and_presets():
    about = settings()
    assert set(about["weights"]) == {"head_ct", "photos"} and all(len(d) == 64 for d in about["weights"].values())
    assert about["presets"]["pnp_admm ct"] == preset("pnp_admm", "ct", 25).described()
