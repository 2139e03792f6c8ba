"""The research API: every public name is documented, and the example in its docstring runs."""

import doctest
import inspect

import pytest

import padis_jax


@pytest.mark.parametrize("name", [name for name in padis_jax.__all__ if not name.startswith("__")])
def test_the_example_of_every_public_name_runs(name, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    public = getattr(padis_jax, name)
    text = inspect.getdoc(public)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert len(test.examples) >= 2, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    if inspect.isclass(public):
        fields = [field for field in public.__dataclass_fields__ if f"{field}: " not in text]
        assert "Attributes:" in text and not fields, f"{name} does not say what {fields} are"
    else:
        missing = [p for p in inspect.signature(public).parameters if p != "options" and f"{p}: " not in text]
        assert "Raises:" in text or name in ("patch_prior",), f"{name} does not say what it refuses"
        assert not missing, f"{name} does not say what {missing} are"
