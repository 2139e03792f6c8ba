"""The study of other images: its sets, the grey prior of a colour one, intervals, and that it resumes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import NETWORK, refused, write_weights

from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from studies import other_data, other_images
from studies.grey_prior import grey_prior

FRAME = frame_for((12, 12), 6)


def test_noise_of_three_channels_is_independent_and_has_the_mean_of_the_one():
    seen = {}

    def denoise(key, plane, sigma):
        seen["level"], seen["plane"] = float(sigma), np.asarray(plane)
        return plane

    clean = np.full((200, 200, 1), 0.4, np.float32)
    noise = 0.2 * np.asarray(jax.random.normal(jax.random.key(0), clean.shape))
    grey = grey_prior(Prior(Partial(denoise), FRAME, channels=3))
    found = grey.denoise(jax.random.key(1), jnp.asarray(clean + noise), jnp.float32(0.2))
    np.testing.assert_allclose(found, clean + noise, atol=1e-5)  # what is added sums to nothing
    assert seen["level"] == pytest.approx(0.2 * np.sqrt(3))
    covariance = np.cov((seen["plane"] - clean).reshape(-1, 3).T)
    np.testing.assert_allclose(covariance, 3 * 0.2**2 * np.eye(3), atol=0.003)
    assert grey.channels == 1 and grey.frame == FRAME


def test_crops_reach_both_ends_and_slices_lie_in_the_middle():
    wide = np.broadcast_to(np.arange(400)[None, :, None], (300, 400, 3))
    first, last = other_images.two_crops(wide)
    assert (first[0, 0, 0], first[0, -1, 0], last[0, 0, 0], last[0, -1, 0]) == (0, 255, 144, 399)
    tall = np.broadcast_to(np.arange(400)[:, None, None], (400, 300, 3))
    assert [crop[0, 0, 0] for crop in other_images.two_crops(tall)] == [0, 144]
    placed = other_images.in_middle(np.ones((217, 181, 1), np.float32))
    assert placed.shape == (256, 256, 1) and placed.sum() == 217 * 181
    assert placed[:19].sum() == 0 and placed[19, 37:218].all() and not placed[:, :37].any()


def test_intervals_draw_pictures_and_not_their_crops():
    groups = {f"{name}{i}": name for name in "ab" for i in range(6)}
    differences = {image: 2.0 * (group == "a") for image, group in groups.items()}
    assert other_data.resampled(differences, groups) == "+1.00 (+0.00 to +2.00)"  # both may be one picture's
    one = {image: group for image, group in groups.items() if group == "a"}
    assert other_data.resampled({image: 2.0 for image in one}, one) == "+2.00"
    many = {f"{i}": f"{i}" for i in range(100)}
    spread = {name: float(int(name) % 2) for name in many}
    assert other_data.resampled(spread, many) in {f"+0.50 (+0.{a} to +0.{b})" for a in (40, 41) for b in (59, 60)}


def test_every_field_has_a_prior_for_its_channels():
    every = other_data.fields(None)
    assert len(every) == len(set(every)) == 6 * 4 + 21 * 6
    assert {f.prior for f in every if f.set == "photographs"} == {"", "photos"}
    assert not [f for f in every if f.set == "photographs" and f.problem == "ct20"]
    assert [f.name for f in other_data.fields(["head/ct20/tv", "brain/sr4/dds*"])] == [
        "brain/sr4/dds_photos",
        "brain/sr4/dds_head",
        "head/ct20/tv",
    ]


def test_a_part_runs_and_resumes(tmp_path, monkeypatch, capsys):
    array = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)
    few = other_images._images("noise", array, ["x", "y", "z"], ["x", "y", "z"])
    monkeypatch.setattr(other_data, "brain", lambda path: few)
    colour = dataclasses.replace(NETWORK, image_channels=3)
    head = write_weights(tmp_path / "head.safetensors")
    photos = write_weights(tmp_path / "photos.safetensors", network=colour)
    flags = ["--head-weights", str(head), "--photos-weights", str(photos), "--out", str(tmp_path / "out")]
    flags += ["--evaluations", "2", "--seeds", "0", "2", "--only", "brain/sr4/tv", "--only", "brain/sr4/pnp_admm*"]
    other_data.main([*flags, "--images", "1", "--dry-run"])
    assert "6 images of fields are missing" in capsys.readouterr().out and not (tmp_path / "out").exists()
    other_data.main([*flags, "--images", "1"])
    files = sorted((tmp_path / "out" / "cells").rglob("*.json"))
    assert [str(f.relative_to(tmp_path / "out" / "cells")) for f in files] == [
        f"brain/sr4/{name}/x_{seed}.json" for name in ("pnp_admm_head", "pnp_admm_photos", "tv") for seed in (0, 2)
    ]
    found = [json.loads(f.read_text())["row"] for f in files]
    assert [c["evaluations"] for c in found] == [2, 2, 2, 2, 0, 0] and len({c["psnr"] for c in found}) == 6
    text = (tmp_path / "out" / "table.md").read_text()
    first, _, tv = (np.mean([c["psnr"] for c in found[i : i + 2]]) for i in (0, 2, 4))  # of both seeds
    assert f"| tv | 1 | {tv:.2f} |" in text and f"{first - tv:+.2f}" in text
    monkeypatch.setattr(other_data, "cell", lambda *_: pytest.fail("computed again"))
    capsys.readouterr()
    other_data.main([*flags, "--images", "1"])
    assert "0 images of fields are missing" in capsys.readouterr().out
    assert "--only brain/ct9: names no field" in refused(other_data.main, [*flags, "--only", "brain/ct9"], capsys)
