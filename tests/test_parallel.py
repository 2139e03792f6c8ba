"""Many devices compute what one does, to rounding, with no more talk than needed: eight virtual ones in a subprocess.

Rounding: sums over the batch are taken in another order, so a float32 result differs by a few units in the last place;
Adam's first steps, which divide by the gradient's own size, enlarge that where a gradient is next to nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny import CONFIG

from padis_jax.batches import PatchConfig
from padis_jax.devices.mesh import make_mesh
from padis_jax.devices.parallel import check_batch
from padis_jax.errors import UserError

ROOT = Path(__file__).parent.parent


def _eight_devices(what, *counts):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "eight_devices.py"), what, *map(str, counts)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _check_training(found, counts):
    for count in counts:
        assert found[str(count)]["distance"] < 1e-4, found
    assert found[str(counts[0])]["collectives"] == {}
    for count in counts[1:]:
        assert found[str(count)]["collectives"] == {"all-reduce": 1}
    split = found["split"]
    assert split["distance"] < 1e-4 and split["digest"] and split["collectives"]["all-gather"] > 0
    assert split["share"] == 1 / counts[-1]


@pytest.mark.slow
def test_training_on_eight_devices():
    _check_training(_eight_devices("training", 1, 8), (1, 8))


@pytest.mark.slow
def test_training_on_two_and_four_devices():
    _check_training(_eight_devices("training", 1, 2, 4), (1, 2, 4))


def test_the_patches_of_one_image_are_shared_and_gathered_once_per_level():
    """The three levels are one loop body: what stands in the program once is done once per level.

    DPS sums the projections of the devices' patches besides, which are of the measurement's size.
    """
    found = _eight_devices("sampling", 1, 2, 4, 8)
    assert len(found) == 28
    for name, entry in found.items():
        assert entry["distance"] < 1e-5, (name, entry)
        solver, count = name.split()
        expected = {"all-gather": 1} if solver.startswith("dds") else {"all-gather": 1, "all-reduce": 1}
        assert entry["collectives"] == ({} if count == "1" else expected), (name, entry)


def test_the_patches_of_one_volume_are_shared_and_gathered_once_per_level():
    """Each of two tilings by slabs stands in the program. DPS sums the gradients of the devices' patches besides."""
    found = _eight_devices("volumes", 2)
    assert set(found) == {"dds 2", "dps 2", "skip 2", "mirror 2"}
    shared = {"all-gather": 1, "all-reduce": 1}
    expected = {"dds": {"all-gather": 1}, "skip": {"all-gather": 2}, "dps": shared, "mirror": shared}
    for name, entry in found.items():
        assert entry["distance"] < 1e-5, (name, entry)
        assert entry["collectives"] == expected[name.split()[0]], (name, entry)


@pytest.mark.slow
def test_images_side_by_side():
    for entry in _eight_devices("images", 1, 2, 4, 8).values():
        assert entry["distance"] < 1e-5 and entry["shape"] == [5, 13, 18, 1]


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match=f"devices is 99, but there are {jax.device_count()}"):
        make_mesh(99)


class _Mesh:
    size = 3


def test_batches_that_do_not_divide():
    with pytest.raises(UserError, match="4 patches cannot be split evenly over 3 devices"):
        check_batch(_Mesh, CONFIG.patches)
    check_batch(_Mesh, PatchConfig(sizes=(4,), probabilities=(1.0,), batch=(6,)))
