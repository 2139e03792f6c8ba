"""Tries every kind of fault that the project knows, and counts what came of each.

    python -m studies.faults                            all kinds, without what takes long
    python -m studies.faults --only pictures weights    some
    python -m studies.faults --slow                     also full disks, all pairs of operators, 30 kills of a training,
                                                        and the checks of 200 scans (alone one to two hours)

A kind is a set of tests (`KINDS`), each a case with its right value, or members that a seed draws (tests/fuzz.py, some
of each kind by the programs too). A case is right if the value was, refused if what it expected was one line of
refusal, and wrong if anything else came: another value, a traceback, a hang or a half-written file. Exit code 1 if one
is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from padis_jax.errors import UserError, one_line_errors
from studies.faults.kills import campaign
from studies.geometry_trials import random_scan, trials, verdict

ROOT = Path(__file__).resolve().parents[2]
FUZZED, DAMAGED, MEMBERS = "fuzzed: ", 300, 600  # files damaged at random; members of all other kinds together
KINDS: dict[str, tuple[str, ...]] = {
    "programs that files start": ("pictures::nothing_but", "pictures::files_that", "convert::hostile"),
    "writing over an input": ("outputs", "writers::an_older"),
    "resuming with other data": ("cli_train::a_run_is_not", "cli_train::a_resumed", "checkpoint::another"),
    "two runs in a folder": ("lock",),
    "bombs": ("bombs", "limit", "tiff::a_strip"),
    "special files and names": ("locate", "hostile_weights::a_pipe"),
    "weights": ("hostile_weights", "weights", "convert", "state_dict"),
    "batch jobs": ("batch_job",),
    "dry runs": ("dry_run",),
    "volumes": ("volume::slices_that", "volume::a_bad", "volume::a_volume"),
    "disks and checkpoints": ("checkpoint", "faults", "writers::a_full"),
    "whose data it is": ("writers::an_anonymous",),
    "pictures": ("pictures", "tiff"),
    "NIfTI": ("nifti", "writers::nifti", "writers::the_forms", "cli_data"),
    "DICOM": ("dicom", "writers::dicom"),
    "pixels that are not square": ("cli_problem::pixels",),
    "masks, order, JSON": ("pictures::masks", "pictures::what_is_no", "locate::numbers", "json"),
    "geometry check": ("geometry_check", "geometry"),
    "geometries of cone beams": ("cone_scan",),
    "sinogram files": ("sinogram_files",),
    "gradients": ("gradients",),
    "64-bit mode": ("x64",),
    "numbers that are not finite": ("fields",),
    "new geometries": ("new_geometry",),
    "sizes and colours": ("mixed_sizes", "image_operators::the_last_block"),
}


class Watch:
    """Counts the cases of pytest that end, and which of them expected a refusal."""

    def __init__(self) -> None:
        self.cases: dict[str, str] = {}  # case -> right, refused or wrong
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._refusals = 0

    def pytest_runtest_setup(self) -> None:
        """Of each case."""
        self._refusals = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of each of its three parts."""
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.cases[report.nodeid] = "wrong"
        elif report.when == "call" and report.passed:
            self.cases[report.nodeid] = "refused" if self._refusals else "right"

    @contextlib.contextmanager
    def expectations(self) -> Iterator[None]:
        """Within it `pytest.raises` of a refusal is noted."""
        known = pytest.raises

        def raises(expected: Any, *args: Any, **options: Any) -> Any:
            kinds = expected if isinstance(expected, tuple) else (expected,)
            self._refusals += any(issubclass(kind, (UserError, ValueError, SystemExit)) for kind in kinds)
            return known(expected, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pytest, "raises", raises)
            yield


def matches(case: str, pattern: str) -> bool:
    """Whether a test of pytest, "tests/test_FILE.py::test_NAME[...]", belongs to "FILE" or "FILE::START OF NAME"."""
    file, _, name = pattern.partition("::")
    return case.startswith(f"tests/test_{file}.py::test_{name}")


def counted(kinds: list[str], watch: Watch) -> dict[str, tuple[Counter[str], float]]:
    """Kind -> (its cases by what came of them, seconds); a case of two kinds counts in both."""
    found: dict[str, tuple[Counter[str], float]] = {}
    for kind in kinds:
        cases = [case for case in watch.cases if any(matches(case, pattern) for pattern in KINDS[kind])]
        found[kind] = Counter(watch.cases[case] for case in cases), sum(watch.seconds[case] for case in cases)
    return found


def run(kinds: list[str], *, slow: bool = False) -> Watch:
    """Runs the cases of the kinds in this process.

    Raises:
      UserError: if a pattern of a kind matches no test.
    """
    patterns = {pattern for kind in kinds for pattern in KINDS[kind]}
    files = sorted({f"{ROOT}/tests/test_{pattern.partition('::')[0]}.py" for pattern in patterns})
    watch = Watch()

    class Chosen:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            unknown = [p for p in patterns if not any(matches(item.nodeid, p) for item in items)]
            if unknown and not slow:  # with -m slow items have been left out already
                raise pytest.UsageError(f"no test matches {', '.join(sorted(unknown))}")
            items[:] = [item for item in items if any(matches(item.nodeid, p) for p in patterns)]

    flags = ["-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-n0", "--rootdir", str(ROOT)]
    with watch.expectations():
        code = pytest.main([*flags, "-m", "" if slow else "not slow", *files], plugins=[watch, Chosen()])
    if code not in (0, 1):
        raise UserError(f"the tests could not be run (pytest ended with {int(code)})")
    return watch


def fuzzer() -> Any:
    """tests/fuzz.py."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module("fuzz")


def fuzzed(kinds: list[str]) -> Iterator[tuple[str, Counter[str], float]]:
    """(kind, its cases by what came of them, seconds) of random members of the kinds; what is wrong is printed."""
    for kind in kinds:
        begin = time.perf_counter()
        found = fuzzer().run(DAMAGED, MEMBERS, 0, kinds=[kind])
        yield f"{FUZZED}{kind}", found[kind], time.perf_counter() - begin


def killed() -> Counter[str]:
    """30 kills of a training, each a case: it continues from a checkpoint, and ends with the same parameters."""
    with tempfile.TemporaryDirectory() as base:
        counts = campaign(Path(base), 30, 800)
    wrong = counts.kills if not counts.equal else counts.failures
    return Counter({"right": counts.kills - wrong, "wrong": wrong})


def checked() -> Counter[str]:
    """Checks of 200 exact scans of random geometry, right ones and ones with each fault."""
    found: Counter[str] = Counter()
    for seed in range(200):
        for trial in trials(*random_scan(np.random.default_rng(seed))):
            wrong = verdict(trial) in ("false alarm", "wrong correction", "missed")
            found["wrong" if wrong else "right"] += 1
    return found


SLOW: dict[str, Callable[[], Counter[str]]] = {"kills of a training": killed, "200 scans": checked}


@one_line_errors()
def main() -> None:
    """Prints the table; exit code 1 if a case is wrong."""
    own = fuzzer().KINDS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*KINDS, *(f"{FUZZED}{kind}" for kind in own), *SLOW]
    parser.add_argument("--only", nargs="+", choices=known, metavar="KIND", help=f"in quotes: {'; '.join(known)}")
    parser.add_argument("--slow", action="store_true", help="also cases of more than 20 s, kills and scans: hours")
    args = parser.parse_args()
    chosen = [
        kind for kind in known if (not args.only and (args.slow or kind not in SLOW)) or kind in (args.only or ())
    ]
    kinds = [kind for kind in KINDS if kind in chosen]
    rows = [(k, *found) for k, found in counted(kinds, run(kinds, slow=args.slow)).items()] if kinds else []
    rows += fuzzed([kind for kind in own if f"{FUZZED}{kind}" in chosen])
    for kind, case in SLOW.items():
        if kind in chosen:
            begin = time.perf_counter()
            rows.append((kind, case(), time.perf_counter() - begin))
    print(f"\n{'kind':28s} {'tried':>6s} {'right':>6s} {'refused':>8s} {'wrong':>6s} {'seconds':>8s}")
    total: Counter[str] = Counter()
    for kind, found, seconds in rows:
        total += found
        print(_row(kind, found, seconds))
    print(_row("all", total, sum(seconds for _, _, seconds in rows)))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{sum(who.ru_utime + who.ru_stime for who in used):.0f} s of the processor")
    raise SystemExit(bool(total["wrong"]))


def _row(kind: str, found: Counter[str], seconds: float) -> str:
    tried = found.total()
    return f"{kind:28s} {tried:6d} {found['right']:6d} {found['refused']:8d} {found['wrong']:6d} {seconds:8.1f}"


if __name__ == "__main__":
    main()
