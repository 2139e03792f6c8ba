"""No command writes over an input, nor over a file that no run of it has written; a second run replaces its own."""

import contextlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from test_cli_train import CONFIG
from tiny import refused, write_weights

from padis_jax.benchmark import __main__ as benchmark
from padis_jax.cli import convert, data, sample, train
from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.outputs import RECORD, check_outputs, claimed

LINKS = {
    "the file": lambda source, target: source.rename(target),
    "hard link": lambda source, target: os.link(source, target),
    "symbolic link": lambda source, target: target.symlink_to(source),
}


def _input(folder, name="in.npy"):
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / name).write_bytes(b"precious")
    return folder / "data" / name


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("named", ["{0}", "{0}::volume", "{1}", "{1}/*", "{2}/**/*"])
def test_an_input_is_known_by_every_name(tmp_path, link, named):
    source, out = _input(tmp_path), tmp_path / "out"
    out.mkdir()
    LINKS[link](source, out / "a.npz")
    (out / RECORD).write_text(json.dumps({"of": "results", "files": ["a.npz"]}))  # even what the list has
    inside = tmp_path / "link"
    inside.symlink_to(out if link == "the file" else source.parent)
    path = named.format(out / "a.npz" if link == "the file" else source, inside, tmp_path)
    with pytest.raises(UserError, match="would be lost|would mix"):
        check_outputs(out, ["b.npz", "a.npz"], ["", path])
    assert (out / "a.npz").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a\0b", "circle"])
def test_what_is_no_path_is_one_line(tmp_path, name):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match="is no path|leads back to itself"):
        check_outputs(tmp_path / name, ["a.npz"], [str(tmp_path)])
    with pytest.raises(UserError, match="is no path|leads back to itself"):
        write_json(tmp_path / name, {})


@pytest.mark.parametrize("inputs", ["data/in.npy", "data", ""])
def test_the_way_through_a_missing_folder_and_back_leads_to_no_file(tmp_path, monkeypatch, inputs):
    source = _input(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="new/../data.*: leads through new, which does not exist"):
        check_outputs("new/../data", ["in.npy"], [inputs])
    with pytest.raises(UserError, match="leads through new, which does not exist"):
        write_json("new/../data/in.npy", {})
    assert source.read_bytes() == b"precious" and not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    write_json("new/../other/a.json", {})
    assert (tmp_path / "other" / "a.json").exists()


def test_only_what_is_listed_is_replaced(tmp_path):
    foreign = tmp_path / "foreign.txt"
    foreign.write_text("mine")
    with claimed(tmp_path / "out", ["a.npz", "pictures/"], []):
        (tmp_path / "out" / "a.npz").write_text("result")
        (tmp_path / "out" / "pictures").mkdir()
        (tmp_path / "out" / "pictures" / "1.png").touch()
    check_outputs(tmp_path / "out", ["a.npz", "pictures/"], [])
    (tmp_path / "out" / "b.npz").write_text("mine")
    with pytest.raises(UserError, match="b.npz: is no result of an earlier run"):
        check_outputs(tmp_path / "out", ["a.npz", "b.npz"], [])
    (tmp_path / "out" / "a.npz").unlink()
    (tmp_path / "out" / "a.npz").symlink_to(foreign)  # a listed name that leads elsewhere
    with pytest.raises(UserError, match="a.npz: is no result"):
        check_outputs(tmp_path / "out", ["a.npz"], [])


@pytest.mark.parametrize(
    ("files", "read", "folder", "mixes"),
    [
        (["in/a.png"], "in", "in", True),
        (["in/a.png"], "in", "in/out", False),  # the folders in it are not read
        (["in/one/a.png"], "in", "in/out", True),
        (["in/one/a.png"], "in/one", "in/out", False),
        (["in/a.png"], "in/*.png", "in", True),
        (["in/a.jpg"], "in/*.jpg", "in", False),
        (["in/a.png"], "in/*.png", "in/out", False),
        (["in/one/a.png"], "in/*/*.png", "in/out", True),
        (["in/a.png"], "in/a.png", "in", False),
        (["in/a[1].png"], "in/a[1].png", "in", False),
    ],
)
def test_results_are_not_read_as_images_the_next_time(tmp_path, monkeypatch, files, read, folder, mixes):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for path in (str(tmp_path / read), read):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match="would mix") if mixes else contextlib.nullcontext():
            check_outputs(folder, ["truth.png", "report.html"], [path])


@pytest.mark.parametrize("text", ["[]", "null", '{"files": 3}', "[" * 100_000, '{"psnr": 30}', "", "1" * 5000])
def test_a_results_json_of_somebody_else_stays(tmp_path, text):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match="is no list of results of this program"):
        check_outputs(tmp_path, ["a.npz"], [])


def test_the_files_of_a_training_are_no_results(tmp_path):
    with claimed(tmp_path, ["config.json"], [], of="training"):
        pass
    with pytest.raises(UserError, match="lists files of 'training', not of 'results'"):
        check_outputs(tmp_path, ["config.json"], [])


def test_folders_of_versions_without_a_list_are_taken_on(tmp_path):
    (tmp_path / "a.npz").touch()
    check_outputs(tmp_path, ["a.npz"], [], ours=True)
    with pytest.raises(UserError, match="is no result"):
        check_outputs(tmp_path, ["a.npz"], [])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights, images, a config of training, and a sinogram in scans/."""
    folder = tmp_path_factory.mktemp("files")
    write_weights(folder / "w.safetensors")
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.random((6, 12, 14), np.float32))
    np.save(folder / "image.npy", rng.random((16, 16), np.float32))
    Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / "photo.png")
    (folder / "tiny.py").write_text(CONFIG.format(path=str(folder / "images.npy")))
    (folder / "scans").mkdir()
    np.savez(folder / "scans" / "a.npz", sinogram=np.ones((5, 24), np.float32))
    return folder


SIMULATED = "--weights w.safetensors --image.path image.npy --image.index 0 --scan.protocol paper --scan.bins 24"
COMMANDS = {  # name: (main, arguments, a file that it would write)
    "sample": (sample.main, f"{SIMULATED} --workdir out", "out/reconstruction.npz"),
    "report": (sample.main, f"{SIMULATED} --workdir out", "out/report.html"),
    "--save-as": (sample.main, f"{SIMULATED} --workdir out --save-as npz --save-as png", "out/pnp_admm.png"),
    "generate": (sample.main, "--weights w.safetensors --generate 2 --workdir out", "out/generated_01.png"),
    "batch": (
        sample.main,
        "--weights w.safetensors --measurements scans --scan.views 5 --scan.bins 24 --workdir out",
        "out/a.npz",
    ),
    "train": (train.main, "--config tiny.py --workdir out", "out/weights.safetensors"),
    "checkpoints": (train.main, "--config tiny.py --workdir out", "out/checkpoints/precious"),
    "benchmark": (
        benchmark.main,
        "--only denoise/start --restore ct --ct image.npy --weights w.safetensors --out out",
        "out/results_only.md",
    ),
    "sheet": (data.main, "inspect photo.png --sheet out/sheet.png", "out/sheet.png"),
    "convert": (convert.main, "w.safetensors out --overwrite", "out/checkpoints/precious"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_to_write_over_a_foreign_file(files, tmp_path, monkeypatch, capsys, name):
    main, arguments, target = COMMANDS[name]
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / target).parent.mkdir(parents=True)
    (tmp_path / target).write_text("precious")
    message = refused(main, arguments.split(), capsys)
    assert str(target).rpartition("/precious")[0] in message or target in message
    assert (tmp_path / target).read_text() == "precious" and not list(tmp_path.glob("out/lock.json"))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("where", ["file", "below a file", "no permission", "loop"])
def test_every_command_says_why_nothing_can_be_written_before_its_work(
    files, tmp_path, monkeypatch, capsys, name, where
):
    main, arguments, _ = COMMANDS[name]
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if where == "loop":
        (tmp_path / "out").symlink_to("out")
        expected = "is a link that leads back to itself"
    elif where == "no permission":

        def denied(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", denied)
        expected = "out: cannot be written to (Permission denied); choose another folder"
    else:
        (tmp_path / "out").write_text("precious")
        out = "out/deep" if where == "below a file" else "out"
        arguments = re.sub(r"(?<= )out\b", out, arguments)
        expected = "is a file, not a folder; move it, or choose another folder"
        if name == "convert" and where == "file":
            arguments = arguments.replace(" --overwrite", "")
            expected = "out already exists"
    before = sorted(tmp_path.rglob("*"))
    assert expected in refused(main, arguments.split(), capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("main", "arguments", "target"),
    [
        (sample.main, f"{SIMULATED} --workdir . --image.path comparison.png", "comparison.png"),
        (sample.main, f"{SIMULATED} --workdir .  --save-as png --image.path pnp_admm.png", "pnp_admm.png"),
        (sample.main, "--weights w.safetensors --measurements scans --scan.views 5 --workdir scans", "scans"),
        (train.main, "--config tiny.py --workdir . --run.start-weights weights.safetensors", "weights.safetensors"),
        (data.main, "inspect photo.png --sheet photo.png", "photo.png"),
        (data.main, "inspect photo.png --sheet link.png", "photo.png"),
        (convert.main, "w.safetensors w.safetensors --overwrite", "w.safetensors"),
    ],
)  # fmt: skip
def test_every_command_refuses_to_write_over_its_input(files, tmp_path, monkeypatch, capsys, main, arguments, target):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("comparison.png", "pnp_admm.png"):
        shutil.copy("photo.png", name)
    os.link("photo.png", "link.png")
    shutil.copy("w.safetensors", "weights.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = refused(main, arguments.split(), capsys)
    assert target in message or "a work folder for train.py" in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_sheet_replaces_an_earlier_sheet(files, tmp_path):
    for _ in range(2):
        data.main(["inspect", str(files / "photo.png"), "--sheet", str(tmp_path / "sheet.png"), "--quiet"])
    assert (tmp_path / "sheet.png").stat().st_size
