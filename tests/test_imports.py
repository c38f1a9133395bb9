import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import limbeck

ROOT = Path(limbeck.__file__).parent
CORE = [
    *("calibration", "capture", "distiller", "fold", "layers", "match"),
    *("parts", "preflight", "projectors", "teacher", "weights"),
]
CRITERIA = [f"criteria/{path.stem}" for path in sorted(ROOT.glob("criteria/*.py"))]
ALONE = ["calibration", "capture", "fold", "projectors", "weights"]  # import nothing of the core


def imports(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_core_runs_on_torch_alone():
    code = "import limbeck, sys; assert not {'timm', 'torchvision', 'accelerate', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [*CORE, *CRITERIA])
def test_core_imports_torch_the_standard_library_and_itself_only(name):
    own = () if name in ALONE else ("limbeck.criteria",)  # all that criteria know of
    if name in CORE and name not in ALONE:
        own += tuple(f"limbeck.{n}" for n in CORE)
    for module in imports(name):
        allowed = module.split(".")[0] in {"torch", *sys.stdlib_module_names} or module.startswith(own)
        assert allowed, f"{name} imports {module}"


def test_public_names_are_sorted_and_complete():
    names = {
        name
        for name, value in vars(limbeck).items()
        if not name.startswith("_") and (name == "criteria" or not isinstance(value, ModuleType))
    }
    assert limbeck.__all__ == sorted(names)


def test_public_criteria_are_complete():
    names = {name for name, value in vars(limbeck.criteria).items() if isinstance(value, type)}
    assert sorted(limbeck.criteria.__all__) == sorted(names)
