"""Runs the tutorials and the gallery, and keeps their outputs for the site: `make tutorials`.

    python docs/run.py                 those whose outputs are not there, or are of an older text
    python docs/run.py uncertainty     those whose name holds the word
    python docs/run.py --short         with few steps, and without keeping anything: do they run?

Outputs are kept in docs/_cache/ under the digest of the page's text. Notebooks run from the top of the checkout.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

from notebooks import executed  # noqa: E402

SHORT = re.compile(r"^(\w+ = ).*?  # short: (.*)$", re.MULTILINE)


def pages(words: list[str]) -> list[Path]:
    """The pages that are notebooks, those whose name holds one of the words."""
    found = sorted(DOCS.rglob("*.nb.md"))
    return [page for page in found if not words or any(word in page.name for word in words)]


def run(page: Path, *, short: bool) -> nbformat.NotebookNode:
    """The executed notebook of a page."""
    text = page.read_text(encoding="utf-8")
    notebook = jupytext.reads(SHORT.sub(r"\1\2", text) if short else text, fmt="md:myst")
    top = {"metadata": {"path": DOCS.parent}}
    local = Config(KernelManager={"transport": "ipc"})  # no port is opened
    return NotebookClient(notebook, timeout=None, kernel_name="python3", resources=top, config=local).execute()


def keep(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes a notebook whole or not at all, and removes nothing else."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        nbformat.write(notebook, file)
    os.replace(file.name, path)


def main() -> int:
    """Exit code 1 if a page fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only pages whose name holds a word")
    parser.add_argument("--short", action="store_true", help="few steps, nothing kept")
    args = parser.parse_args()
    chosen, failed = pages(args.words), 0
    if not chosen:
        parser.error(
            f"no page's name holds {' or '.join(args.words)}; there are {', '.join(p.name for p in pages([]))}"
        )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's notes on kept programs, as the commands do
    for page in chosen:
        path = executed(page.read_text(encoding="utf-8"))
        if path.exists() and not args.short:
            print(f"{page.name}: outputs are there", flush=True)
            continue
        begin = time.monotonic()
        try:
            notebook = run(page, short=args.short)
        except CellExecutionError as error:
            failed += 1
            print(f"{page.name}: {error.ename}: {error.evalue}", file=sys.stderr, flush=True)
            continue
        print(f"{page.name}: {time.monotonic() - begin:.0f} s", flush=True)
        if not args.short:
            keep(notebook, path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
