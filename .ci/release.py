"""Walks through what a release needs, and stops at the first thing that is missing: `make release`.

    make release                              all of it, with Python 3.11 and 3.13
    make release RELEASE='--python python3.12'   with others

1. Nothing uncommitted. 2. One version in padis_jax/__init__.py, CITATION.cff and the newest section of CHANGELOG.md.
3. A wheel is built, and its licence, its prior and the typing marker are in it. 4. For each Python the wheel is
installed into an empty environment with its extra "medical", and loads the prior that comes along and
reconstructs the demo's slice, from outside of the checkout. 5. What is left to do by hand is printed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
BY_HAND = """Left to do by hand:
  git tag -a v{version} -m 'padis_jax {version}'
  upload {wheel} to the package index
  write the next "Unreleased" into CHANGELOG.md"""


def run(*command: str | Path, cwd: Path = TOP) -> str:
    """A command's output; ends the walk where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-15:]
        sys.exit("\n".join([f"error: {' '.join(str(word) for word in command)} ended with {done.returncode}", *lines]))
    return done.stdout


def found(pattern: str, file: str) -> str:
    """The first match of a pattern in a file."""
    match = re.search(pattern, (TOP / file).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "none"


def version() -> str:
    """The one version of all places."""
    places = {
        "padis_jax/__init__.py": r'^__version__ = "(.*)"',
        "CITATION.cff": r"^version: (.*)$",
        "CHANGELOG.md": r"^## \[?([\w.]+)",
    }
    versions = {file: found(pattern, file) for file, pattern in places.items()}
    if len(set(versions.values())) != 1:
        told = ", ".join(f"{file} {value}" for file, value in versions.items())
        sys.exit(f"error: the versions differ: {told}; a release needs a dated section in CHANGELOG.md")
    return versions["CITATION.cff"]


def built(folder: Path) -> Path:
    """The wheel, with what must be in it."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ".")
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("padis_jax/py.typed", "padis_jax/priors/photos.safetensors", "licenses/LICENSE"):
        if not any(name.endswith(part) for name in names):
            sys.exit(f"error: {wheel.name} has no {part}")
    if stray := [
        name for name in names if name.split("/")[0] not in ("padis_jax", wheel.name.rsplit("-", 3)[0] + ".dist-info")
    ]:
        sys.exit(f"error: {wheel.name} holds {stray[0]}, which is not of the package")
    return wheel


def tried(wheel: Path, python: str, folder: Path) -> None:
    """Installs the wheel for one Python and runs the demo from it, outside of the checkout."""
    run(python, "-m", "venv", folder / "env", cwd=folder)
    run(folder / "env/bin/python", "-m", "pip", "install", "-q", f"{wheel}[medical]", cwd=folder)
    run(folder / "env/bin/python", "-c", "import padis_jax; padis_jax.load_prior('photos')", cwd=folder)
    command = [folder / "env/bin/padis-sample", "--weights", TOP / "weights/head_ct.safetensors", "--image.path",
               TOP / "data/head_ct.npz", "--workdir", folder / "results"]  # fmt: skip
    table = run(*command, cwd=folder)
    if not (folder / "results/report.html").exists():
        sys.exit(f"error: {python}: the demo wrote no report")
    print(f"{python}:\n{table.strip()}", flush=True)


def main() -> None:
    """The walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", nargs="+", default=["python3.11", "python3.13"], help="interpreters to install with"
    )
    args = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"error: not committed: {changed.splitlines()[0]}")
    number = version()
    print(f"padis_jax {number}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        wheel = built(Path(name))
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        for python in args.python:
            folder = Path(name) / Path(python).name
            folder.mkdir()
            tried(wheel, python, folder)
        dist = TOP / "dist"
        dist.mkdir(exist_ok=True)
        kept = wheel.rename(dist / wheel.name)
    print(BY_HAND.format(version=number, wheel=kept.relative_to(TOP)))


if __name__ == "__main__":
    main()
