"""Which files a path stands for: pipes, links, brackets, numbers in names, and names that a terminal should not see."""

import json
import os

import numpy as np
import pytest
from medical import ramp, write_slice
from members import judge, special
from PIL import Image
from tiny import refused

from padis_jax.cli import data
from padis_jax.errors import UserError
from padis_jax.files import base_name
from padis_jax.images import open_source, read_images


def picture(path, value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as handle:
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(handle, "PNG")
    return path


@pytest.mark.parametrize("name", ["x.png", "pipe"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to nothing"])
def test_what_is_no_file_is_never_opened(tmp_path, name, kind):
    picture(tmp_path / "a.png")
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero" if kind == "device" else "gone.png")
    source = open_source(tmp_path)
    assert source.names == ("a.png",)
    assert [note for note in source.notes if name in note] or (kind, name) == ("link to nothing", "pipe")
    with pytest.raises(UserError, match="a pipe, a device or a link to nothing|no such file"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("thing", special.THINGS)
def test_no_reader_waits_for_what_is_no_file(tmp_path, thing):
    """Of images, scans, geometries, weights, kernels, masks, configs, logs, jobs, locks ..."""
    tried = [member for member in special.members() if member.name.startswith(f"{thing} for ")]
    assert len(tried) == len(special.READERS) or (thing == "no permission" and os.geteuid() == 0)
    for number, member in enumerate(tried):
        (tmp_path / str(number)).mkdir()
        outcome, message, _ = judge.judged(member, tmp_path / str(number))
        assert outcome in ("right", "refused"), (member.name, outcome, message)


def test_links_to_folders_are_followed_once(tmp_path):
    picture(tmp_path / "away" / "scan" / "1.png")
    picture(tmp_path / "set" / "own" / "1.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "away" / "scan")
    (tmp_path / "set" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "twice").symlink_to(tmp_path / "away" / "scan")
    source = open_source(tmp_path / "set")
    assert [origin.volume for origin in source.origins] == ["set/linked", "set/own"]
    assert [note.split(":")[0].split("/")[-1] for note in source.notes] == ["round", "twice"]


@pytest.mark.parametrize("path", ["set", "set/", ".", "..", "one/..", "../set/one/.."])
@pytest.mark.parametrize("own", [True, False])
def test_a_folder_is_called_by_its_name_whatever_path_leads_to_it(tmp_path, monkeypatch, path, own):
    """By which volumes are held out, and results are titled."""
    picture(tmp_path / "set" / ("1.png" if own else "scan/1.png"))
    (tmp_path / "set" / "one").mkdir()
    monkeypatch.chdir(
        {"set": tmp_path, ".": tmp_path / "set", "one": tmp_path / "set"}.get(
            path.split("/")[0], tmp_path / "set" / "one" if path == ".." else tmp_path / "set"
        )
    )
    assert base_name(path) == "set"
    assert [origin.volume for origin in open_source(path).origins] == ["set" if own else "set/scan"]


@pytest.mark.parametrize("pattern", ["scan [1]", "scan [1]/*.png", "scan [1]/a[2].png", "scan [1]/a[[]2].png", "scan*"])
def test_brackets_in_names(tmp_path, pattern):
    picture(tmp_path / "scan [1]" / "a[2].png")
    assert open_source(tmp_path / pattern).names == ("a[2].png",)


def test_brackets_are_still_a_pattern(tmp_path):
    for name in "123":
        picture(tmp_path / f"a{name}.png")
    assert open_source(tmp_path / "a[13].png").names == ("a1.png", "a3.png")


@pytest.mark.parametrize("names", [("1", "2", "10"), ("s1z9", "s1z10", "s02z1"), ("a", "b1", "b²")])
def test_numbers_in_names_count_by_their_value(tmp_path, names):
    for value, name in enumerate(names):
        picture(tmp_path / "set" / f"{name}.png", value)
        picture(tmp_path / "volumes" / name / "x.png", value)
    for path in (tmp_path / "set", str(tmp_path / "set" / "*.png"), tmp_path / "volumes"):
        source = open_source(path)
        assert [source.read(index)[0, 0, 0] for index in range(3)] == [0, 1, 2]
        assert len([note for note in source.notes if "not padded with zeros" in note]) == (list(names) != sorted(names))


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\x1b[31mred\rx.png", "\u202egnp.x.png".encode()])
def test_names_reach_the_terminal_as_text(tmp_path, name, capsys):
    folder = os.fsencode(tmp_path / "set")
    os.mkdir(folder)
    picture(tmp_path / "a.png").rename(os.fsdecode(folder + b"/" + name))
    for argv in ([tmp_path / "set"], [os.fsdecode(folder + b"/" + name)], [tmp_path / "set", "--json"]):
        data.main(["inspect", *map(str, argv)])
        printed = capsys.readouterr().out
        assert printed.replace("\n", "").isprintable() and "\\" in printed, printed
    assert json.loads(printed)["images"] == 1
    with open(folder + b"/" + name, "wb") as handle:
        handle.write(b"no picture")
    assert refused(data.main, ["inspect", os.fsdecode(folder + b"/" + name)], capsys).strip().isprintable()


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    for name in ("1", "2"):
        write_slice(tmp_path / name, ramp()[0], z=float(name))
    (tmp_path / "3").write_bytes(b"")
    closed = str(tmp_path / "3")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != closed)  # to root, every file is open
    assert f"{closed}: may not be read, so whether it is DICOM is not known; ignored" in read_images(tmp_path).notes


def test_images_that_are_not_read_are_told(tmp_path):
    picture(tmp_path / "set" / "1.png")
    for name in ("3.webp", "2.BMP", "notes.txt"):
        (tmp_path / "set" / name).write_bytes(b"")
    read = read_images(tmp_path / "set")
    assert len(read.names) == 1
    assert f"{tmp_path / 'set' / '2.BMP'} and 1 more: images of a type that is not read; ignored" in read.notes


@pytest.mark.parametrize("path", ["a\0b", "a\0b/*.png"])
def test_a_zero_byte_is_no_path(path):
    with pytest.raises(UserError, match="no such file or folder; check the path"):
        read_images(path)
