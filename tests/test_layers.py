"""The house: which module may import which, read from the sources, and what an import costs, in a fresh process."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_weights

import padis_jax

ROOT = Path(padis_jax.__file__).parent
LAYERS = ("mathematics", "images", "measurements", "problems", "solvers", "runs", "cli", "experiment")
ROOMS = {
    "operators": "mathematics",
    "devices": "mathematics",
    "conversion": "mathematics",
    "figures": "mathematics",
    "baselines": "mathematics",
    "images": "images",
    "writers": "images",
    "measurements": "measurements",
    "problems": "problems",
    "solvers": "solvers",
    "runs": "runs",
    "benchmark": "runs",
    "cli": "cli",
    "experiment": "experiment",  # re-exports, for users' own files
}
MATHEMATICS = (
    "batches blocks checkpoint config convolution denoiser digest display errors fields files inflate keys lock loss "
    "metrics mirror noise outputs patches positions prior serialization shipped slab_batches slabs streamed tilings "
    "training training_loop unet volume_prior volume_weights weights window winograd"
).split()
MODULES_OF = {**dict.fromkeys(MATHEMATICS, "mathematics"), "split": "images", "benchmark.__main__": "cli"}


def modules():
    """Every module of the package by its name below padis_jax, with its file; the package itself left out."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


MODULES = modules()
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


def layer(module):
    """Its index in LAYERS; None where it has none."""
    name = MODULES_OF.get(module) or ROOMS.get(module.split(".")[0])
    return None if name is None else LAYERS.index(name)


def imports(module):
    """All that a module imports, anywhere in it: (dotted name, name that is taken from it or None)."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def dependencies(module):
    """The modules that a module imports, and the packages, other than its own, whose __init__ runs on the way."""
    found = set()
    for name, taken in imports(module):
        root, _, inner = name.partition(".")
        if root != "padis_jax" or not (inner or taken):
            continue
        candidates = [part for part in (inner, f"{inner}.{taken}" if inner else taken) if part in MODULES]
        assert candidates, f"{module} takes {taken} from padis_jax: import it from the module that defines it"
        parts = candidates[-1].split(".")
        above = {".".join(parts[:n]) for n in range(1, len(parts))}
        found |= {candidates[-1]} | {other for other in above if not module.startswith(f"{other}.")}
    return found - {module}


GRAPH = {module: dependencies(module) for module in MODULES}


def test_every_module_has_a_layer():
    assert [module for module in MODULES if layer(module) is None] == []
    assert [name for name in (*ROOMS, *MODULES_OF) if name not in MODULES] == []


def test_the_table_of_the_design_names_every_module_of_the_top_and_every_folder():
    """And of the folders whose modules it lists, all of them."""
    table = (ROOT.parent / "docs" / "design.md").read_text().split("| layer |")[1].split("`studies/` is outside")[0]
    rows = [re.findall(r"`([\w.]+)/?`", row) for row in table.splitlines()]
    assert sorted({*MATHEMATICS, *ROOMS} - {name for row in rows for name in row}) == []
    for folder in ("operators", "measurements", "problems"):
        row = next(row for row in rows if row[:1] == [folder])
        assert [name for name in MODULES if name.startswith(f"{folder}.") and name.split(".")[1] not in row] == []


def test_nothing_imports_upward():
    upward = [(module, other) for module, others in GRAPH.items() for other in others if layer(other) > layer(module)]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle():
    left = dict(GRAPH)
    while free := [m for m in left if not left[m] & left.keys() or not any(m in others for others in left.values())]:
        for module in free:
            del left[module]
    assert sorted(left) == []


def test_operators_import_jax_numpy_and_each_other():
    allowed = {"jax", "numpy", "scipy", "einops", *sys.stdlib_module_names}
    for module in (module for module in MODULES if module.split(".")[0] == "operators"):
        assert {other for other in GRAPH[module] if other.split(".")[0] != "operators"} <= {"errors"}, module
        roots = {name.split(".")[0] for name, _ in imports(module)}
        assert roots <= allowed | {"padis_jax"}, module


def test_within_the_package_nothing_but_the_version_is_taken_from_its_top():
    """`padis_jax.reconstruct` inside of the package would be an import that the tests above do not see."""
    for module, tree in TREES.items():
        taken = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "padis_jax"
        }
        assert taken <= {"__version__"}, (module, taken)


def fresh(code):
    """What a new process with this code prints last, read as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return json.loads(done.stdout.splitlines()[-1])


READERS = ("pydicom", "nibabel", "h5py", "scipy.io", "PIL", "tifffile", "png", "padis_jax.images")
COMMANDS = ("tyro", "tqdm", "matplotlib", "orbax", "optax", "padis_jax.cli", "padis_jax.runs", "padis_jax.figures")


@pytest.mark.parametrize("code", ["padis_jax", "padis_jax.load_prior({weights!r})"])
def test_a_prior_needs_no_file_readers_and_no_commands(tmp_path, code):
    code = code.format(weights=str(write_weights(tmp_path / "w.safetensors")))
    loaded = fresh(f"import json, sys; import padis_jax; {code}; print(json.dumps(sorted(sys.modules)))")
    assert "padis_jax" in loaded
    assert [name for name in loaded if any(f"{name}.".startswith(f"{other}.") for other in READERS + COMMANDS)] == []


def test_importing_the_package_costs_little_more_than_importing_jax():
    """At most 1.2 times as long; both in turns, the fastest of three fresh processes each."""
    timed = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    rounds = [(fresh(timed.format("padis_jax")), fresh(timed.format("jax"))) for _ in range(3)]
    ours, jax = map(min, zip(*rounds, strict=True))
    assert ours <= 1.2 * jax, rounds


def test_public_names_are_lazy_documented_and_those_of_their_modules():
    block = next(node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If))
    shown = {alias.asname: node.module for node in block.body for alias in node.names}
    assert padis_jax.__all__ == sorted(shown) and {*shown, "__version__"} <= set(dir(padis_jax))
    for name, module in shown.items():
        found = getattr(padis_jax, name)
        assert found is getattr(importlib.import_module(module), name) and found.__doc__


def test_modules_can_be_reached_and_mistyped_names_cannot():
    assert padis_jax.weights.load_prior is padis_jax.load_prior
    assert padis_jax.prior.patch_prior is padis_jax.patch_prior
    with pytest.raises(AttributeError, match="'padis_jax' has no attribute 'reconstrcut'"):
        padis_jax.reconstrcut  # noqa: B018
    with pytest.raises(ImportError, match="reconstrcut"):
        from padis_jax import reconstrcut  # noqa: F401
