"""Checkpoints: what was saved comes back; damaged, interrupted and foreign ones give one line and stay as they are."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from tiny import CONFIG, random_state

from padis_jax import checkpoint
from padis_jax.errors import UserError
from padis_jax.training import init_state

ABOUT = {"config": dataclasses.asdict(CONFIG), "frame": {"patch": 8}}
LIKE = jax.eval_shape(lambda: init_state(CONFIG))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A work folder with the checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp("saved")
    with checkpoint.open_checkpoints(workdir) as manager:
        for step in (10, 20):
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def _restore(workdir, like=LIKE):
    with checkpoint.open_checkpoints(workdir) as manager:
        return checkpoint.restore(manager, like)


def _refusal(workdir, like=LIKE):
    with pytest.raises(UserError) as refused:
        _restore(workdir, like)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_the_newest_comes_back_bit_for_bit(saved):
    state, expected = _restore(saved), random_state(seed=20, step=20)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_config_comes_back_as_json(saved):
    with checkpoint.open_checkpoints(saved) as manager:
        found = checkpoint.saved_config(manager)
    assert found["frame"] == {"patch": 8}
    assert found["config"]["patches"]["sizes"] == [4, 8]


def test_an_empty_folder_has_nothing(tmp_path):
    with checkpoint.open_checkpoints(tmp_path / "new") as manager:
        assert checkpoint.saved_config(manager) is None
        assert checkpoint.restore(manager, LIKE) is None


def test_only_the_newest_are_kept_and_a_step_is_saved_once(tmp_path):
    with checkpoint.open_checkpoints(tmp_path, keep=2) as manager:
        for step in (1, 2, 3, 3):
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT)
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == [2, 3]


def test_an_interrupted_save_is_passed_over(workdir):
    """A process that is killed while saving leaves a temporary folder; the checkpoint before it counts, and it goes."""
    root = checkpoint.folder(workdir)
    cut_off = root / "25.orbax-checkpoint-tmp"
    shutil.copytree(root / "20" / "state", cut_off / "state.orbax-checkpoint-tmp")
    assert int(_restore(workdir).step) == 20
    with checkpoint.open_checkpoints(workdir) as manager:
        checkpoint.save(manager, random_state(seed=30, step=30), ABOUT)
    assert int(_restore(workdir).step) == 30
    assert not cut_off.exists()


def _truncate(root):
    files = [f for f in (root / "state").rglob("*") if f.is_file() and f.stat().st_size > 1000]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _remove_state(root):
    shutil.rmtree(root / "state")


@pytest.mark.parametrize("damage", [_truncate, _remove_state])
def test_a_damaged_checkpoint_is_named_with_the_remedy(workdir, damage):
    damage(checkpoint.folder(workdir) / "20")
    message = _refusal(workdir)
    assert str(checkpoint.folder(workdir) / "20") in message and "remove this folder" in message
    # The remedy works: without that folder, training goes on from the checkpoint before.
    shutil.rmtree(checkpoint.folder(workdir) / "20")
    assert int(_restore(workdir).step) == 10


@pytest.mark.parametrize("text", ["", '{"config": ', "[1, 2]"])
def test_a_damaged_config_is_named(workdir, text):
    (checkpoint.folder(workdir) / "20" / "config" / "metadata").write_text(text)
    with checkpoint.open_checkpoints(workdir) as manager, pytest.raises(UserError, match="20: damaged") as refused:
        checkpoint.saved_config(manager)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"model_channels": 12}, {"channel_mult": (1, 1)}, {"num_blocks": 2}])
def test_another_architecture_is_refused(workdir, change):
    other = dataclasses.replace(CONFIG, network=dataclasses.replace(CONFIG.network, **change))
    message = _refusal(workdir, jax.eval_shape(lambda: init_state(other)))
    assert "of another architecture" in message and "choose another --workdir" in message
    assert int(_restore(workdir).step) == 20  # and it is still there
