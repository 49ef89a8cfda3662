"""What the package imports is what pyproject.toml declares."""

import ast
import sys
from pathlib import Path

import pytest

import hf_vanilla_transformer

PACKAGE = Path(hf_vanilla_transformer.__file__).parent
# Packages that are nothing without an extra, so that their files may begin with it; nobody imports them by the way.
OF_AN_EXTRA = {"serving": "serve"}
# Extras that are nothing to the package itself.
OF_TESTS = ("test", "browser", "ray", "dev")


def imported_by(path):
    """The first names of what a file imports from elsewhere; those at its top, and those anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        yield from ((name.split(".")[0], node in tree.body) for name in names)


def declared(requirements):
    """Names of modules, for names of projects that are the same or known to differ."""
    names = {each.partition(">")[0].partition("<")[0].strip() for each in requirements}
    return {{"pyyaml": "yaml", "protobuf": "google", "scikit-learn": "sklearn"}.get(name, name) for name in names}


def test_all_that_is_imported_is_declared():
    path = PACKAGE.parent / "pyproject.toml"
    if not path.exists():
        pytest.skip("installed without its source")
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads(path.read_text())["project"]
    needed, optional = declared(project["dependencies"]), set()
    for name, requirements in project["optional-dependencies"].items():
        optional |= declared(requirements) if name not in OF_TESTS else set()
    for file in sorted(PACKAGE.rglob("*.py")):
        extra = OF_AN_EXTRA.get(file.relative_to(PACKAGE).parts[0])
        at_top = needed | declared(project["optional-dependencies"][extra]) if extra else needed
        for name, is_at_top in imported_by(file):
            if name in sys.stdlib_module_names or name == "hf_vanilla_transformer":
                continue
            assert name in (at_top if is_at_top else needed | optional), f"{file.name} imports {name}"


def test_a_package_of_an_extra_is_imported_by_its_name_without_it():
    """Its `__init__` and what commands need for their help begin with nothing from elsewhere."""
    light = {f"{package}.limits" for package in OF_AN_EXTRA} | {"serving.access_token"}
    for module in light | {f"{package}.__init__" for package in OF_AN_EXTRA}:
        file = PACKAGE / f"{module.replace('.', '/')}.py"
        assert {each for each, _ in imported_by(file)} <= sys.stdlib_module_names
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] in OF_AN_EXTRA:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                assert node.module.partition(".")[0] not in OF_AN_EXTRA or node.module in light, file.name
