"""The noise levels of a run: first, last, spacing and number; docs/studies/schedule.md.

    python -m studies.schedule map                  first x last level, 25 levels, validation images
    python -m studies.schedule map --problems ct20 --methods pnp_admm --seeds 0 --most 5
    python -m studies.schedule lines                through the best of the map: spacing, number, other problems
    python -m studies.schedule rule                 test images: the best three of a map, the preset and the rule
    python -m studies.schedule table                the tables of whatever cells there are
    python -m studies.schedule figure               the maps as a picture

All else is the preset of the problem's kind. Every cell has a file in --out: rerun the same command to resume. `lines`
and `rule` begin at what `map` found; the rule is that of rule.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from padis_jax.errors import one_line_errors
from padis_jax.figures import save_figure
from studies.schedule.cells import MAPPED, METHODS, NEAREST, RULED, line_cells, map_cells, measure, read
from studies.schedule.report import figure, rule_table, tables
from studies.schedule.rule import rule_cells


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("map", "lines", "rule", "table", "figure"))
    parser.add_argument("--problems", nargs="+", choices=RULED, help="default: of map two, of lines four, of rule all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: of map two of them, else all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--most", type=int, help="new cells in this call")
    parser.add_argument("--out", type=Path, default=Path("results/schedule"))
    args = parser.parse_args(argv)
    mapped = MAPPED if args.part == "map" else {"problems": tuple(NEAREST), "methods": METHODS}
    problems, methods = (getattr(args, name) or mapped[name] for name in ("problems", "methods"))
    if args.part == "map":
        measure(map_cells(problems, methods, args.seeds), args.out, args.most)
    elif args.part == "lines":
        cells = line_cells(read(args.out), problems, methods, args.seeds)
        measure(cells, args.out, args.most)
    elif args.part == "rule":
        problems, methods = args.problems or RULED, args.methods or METHODS[:1]
        found = read(args.out)
        measure(rule_cells(found, problems, methods, args.seeds, args.out), args.out, args.most)
    elif args.part == "figure":
        save_figure(args.out / "map.png", figure(read(args.out)))
        print(args.out / "map.png")
    else:
        print(tables(read(args.out)))
        print(rule_table(read(args.out)))


if __name__ == "__main__":
    main()
