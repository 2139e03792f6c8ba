"""What earlier runs have left in a results folder: a patient's name where this run is to name none, and stale results.

`results.json` lists what runs wrote (`padis_jax.outputs`), and config.json says whether the last of them was anonymous.
An anonymous run does not begin beside results that are not, so what is true of the last is true of those before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from padis_jax.devices.mesh import is_leader
from padis_jax.errors import UserError
from padis_jax.files import read_text
from padis_jax.outputs import RECORD, written

HEADERS = (".dcm", ".nii.gz")  # of formats that carry over what the source says of the patient


def stale(workdir: Path, names: Collection[str]) -> list[str]:
    """What runs have written to a folder, is still there, and is not among the `names` of this one."""
    return sorted(name for name in written(workdir) - {*names, RECORD} if (workdir / name).exists())


def say_stale(workdir: Path, names: Collection[str]) -> None:
    """At the end of a run: names on stderr what is in the folder and not of this run."""
    if is_leader() and (left := stale(workdir, names)):
        print(f"note: {workdir}: {_named(left)}: of an earlier run, not of this one; delete what is not needed",
              file=sys.stderr)  # fmt: skip


def refuse_patient(workdir: Path, names: Collection[str]) -> None:
    """Before an anonymous run: refuses results that name the patient and would stay.

    Raises:
      UserError: naming them.
    """
    if left := _of_patient(workdir, stale(workdir, names)):
        raise UserError(
            f"{workdir}: --anonymise: {_named(left)} of an earlier run without it may name the patient, and would "
            "stay; delete what is named, or choose another --workdir"
        )


def remove_patient(workdir: Path, names: Collection[str]) -> None:
    """As an anonymous run begins: removes what it will write anew, which may name the patient; if it is killed, too."""
    for name in _of_patient(workdir, names):
        (workdir / name).unlink()


def _of_patient(workdir: Path, names: Iterable[str]) -> list[str]:
    """Those of the files that carry the source's header, unless the last run was anonymous."""
    try:
        if json.loads(read_text(workdir / "config.json"))["experiment"]["anonymise"] is True:
            return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # none, or of an older version
    return [name for name in names if name.endswith(HEADERS) and (workdir / name).is_file()]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
