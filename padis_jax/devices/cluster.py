"""Several processes, on one machine or many, as one program: flags of train and sample.

    --cluster.auto                           on SLURM, Open MPI, Kubernetes, GKE and Cloud TPU, JAX finds the rest
    --cluster.coordinator HOST:PORT --cluster.processes N --cluster.process I       anywhere else, given by hand
    --cluster.timeout SECONDS                how long to wait for the other processes (300)

They are not part of a run's settings, which do not depend on where it runs. docs/cluster.md has scripts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import jax

from padis_jax.devices.mesh import check_devices
from padis_jax.errors import UserError, reason


def join(args: Sequence[str]) -> list[str]:
    """Joins the cluster that the flags name, if any; to be called before JAX is used in any other way.

    Args:
      args: command-line arguments.

    Returns:
      The arguments without the flags above.

    Raises:
      UserError: for incomplete flags, if the processes do not find each other in time, or without a device.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--cluster.auto", dest="auto", action="store_true")
    own.add_argument("--cluster.coordinator", dest="coordinator")
    own.add_argument("--cluster.processes", dest="processes", type=int)
    own.add_argument("--cluster.process", dest="process", type=int)
    own.add_argument("--cluster.timeout", dest="timeout", type=int, default=300)
    try:
        known, rest = own.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    by_hand = (known.coordinator, known.processes, known.process)
    if all(value is None for value in by_hand) and not known.auto:
        check_devices()
        return rest
    if known.auto and any(value is not None for value in by_hand):
        raise UserError("--cluster.auto finds coordinator, processes and process itself: leave the others out")
    if not known.auto:
        _check(*by_hand)
    try:
        jax.distributed.initialize(
            coordinator_address=known.coordinator,
            num_processes=known.processes,
            process_id=known.process,
            initialization_timeout=known.timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--cluster: the processes did not come together ({reason(error, 300)}); start one process for each "
            "number, let all reach the coordinator's port, or give --cluster.coordinator, --cluster.processes and "
            "--cluster.process"
        ) from error
    check_devices()
    return rest


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is None or processes is None or process is None:
        raise UserError(
            "--cluster.coordinator, --cluster.processes and --cluster.process belong together: give all three"
        )
    if ":" not in coordinator:
        raise UserError(f"--cluster.coordinator is {coordinator!r}: give HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise UserError(
            f"--cluster.process is {process}: it must be between 0 and --cluster.processes - 1 = {processes - 1}"
        )
