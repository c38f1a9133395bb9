import ast
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import limbeck
from limbeck import api
from limbeck.cli import COMMANDS, main
from limbeck.tasks import TASKS

ROOT = Path(limbeck.__file__).parent
# Rooms from the bottom up; a module imports from its own room and from those of the rows above its own.
LEVELS = [
    ["core"],
    ["criteria"],
    ["teacher", "compress"],
    ["data"],
    ["models"],
    ["methods"],
    ["training", "export"],
    ["tasks"],
    ["commands"],
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
INTERNAL = ("annotations", "limbeck", "Path", "TYPE_CHECKING")  # names in api.py that are not for others
TORCH_ALONE = ("core", "criteria", "teacher", "compress")


def modules_in(room):
    return sorted((ROOT / room).rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if node.module == "limbeck":
                yield from (f"limbeck.{alias.name}" for alias in node.names)


def test_every_room_has_a_level():
    assert set(LEVEL_OF) == {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}


def loaded_by(code):
    """The modules that a fresh process has after it."""
    code += "\nimport sys; print('\\n', *sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_core_runs_on_torch_alone():
    assert not {"timm", "torchvision", "accelerate", "transformers"} & loaded_by("from limbeck import *")


def test_import_loads_no_compiler():
    assert "torch._dynamo" not in loaded_by("from limbeck import *")


def test_the_overview_loads_no_torch():
    assert "torch" not in loaded_by("from limbeck.cli import main; main(['--help'])")


def test_what_shows_only_text_loads_no_networks_and_no_compiler():
    loaded = loaded_by("from limbeck.cli import main; main(['methods'])")
    assert not {"torchvision.models.detection", "transformers", "torch._dynamo"} & loaded


@pytest.mark.parametrize(
    "words", [*COMMANDS, *(f"{command} {task}" for command in ("train", "distill", "compress") for task in TASKS)]
)
def test_help_needs_no_torch_and_says_the_same(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with suppress(SystemExit):
        main([*words.split(), "--help"])
    code = f"""
import sys
from limbeck.cli import main
class Refused:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch"
sys.meta_path.insert(0, Refused())
main({words.split()} + ["--help"])
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    here, there = (re.findall(r"\w+", text) for text in (capsys.readouterr().out, ran.stdout))  # boxes may differ
    assert here == there


def test_after_help_the_library_is_the_real_one():
    code = """
from contextlib import suppress
from limbeck.cli import main
with suppress(SystemExit):
    main(["layers", "--help"])
import torch
from limbeck.criteria import ChannelTransform
assert isinstance(ChannelTransform(), torch.nn.Module)
"""
    assert "torch" in loaded_by(code)


def test_help_of_a_recipe_in_a_file_imports_what_it_imports(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text('import torch\n\ndef mine(size: int = torch.zeros(3).numel()):\n    """Mine."""\n')
    code = f"from limbeck.cli import main; main(['train', {str(file)!r}, '--help'])"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "(default: 3)" in ran.stdout


def test_layers_load_no_metrics_and_no_compiler():
    loaded = loaded_by("from limbeck.cli import main; main(['layers', 'timm:test_resnet', '--size', '32'])")
    assert not {"torchmetrics", "transformers", "scipy", "triton", "torch._dynamo"} & loaded


def test_what_was_imported_without_the_compiler_finds_it_when_it_compiles():
    code = """
from limbeck.commands.light_imports import import_without_compiler
import_without_compiler()
import torch, torchvision
from torchvision.ops import roi_align
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu")
boxes = torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]])
pool = torch.compile(lambda image: roi_align(image, boxes, 2), backend="eager")
assert torch.equal(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 2, 2))
"""
    assert "torch._dynamo.config" in loaded_by(code)


def test_whoever_wants_more_of_the_compiler_meanwhile_gets_the_real_one():
    code = """
from importlib import import_module
from limbeck.commands import light_imports

def importing(name):
    if name == "torchvision":
        import torch._dynamo.config
        from torch._dynamo.utils import counters
    return import_module(name)

light_imports.import_module = importing
light_imports.import_without_compiler()
"""
    assert "torch._dynamo.config" in loaded_by(code)


@pytest.mark.parametrize("room", TORCH_ALONE)
def test_the_library_imports_torch_the_standard_library_and_itself_only(room):
    for path in modules_in(room):
        for module in imports(path):
            assert module.split(".")[0] in {"torch", "limbeck", *sys.stdlib_module_names}, f"{path} imports {module}"


@pytest.mark.parametrize("room", LEVEL_OF)
def test_imports_go_downwards(room):
    for path in modules_in(room):
        for module in imports(path):
            package, _, rest = module.partition(".")
            other = rest.split(".")[0]
            if package == "limbeck" and other in LEVEL_OF and other != room:
                assert LEVEL_OF[other] < LEVEL_OF[room], f"{path.relative_to(ROOT)} imports {module}"


def test_public_names_are_sorted_and_complete():
    public = [name for name in vars(api) if name[0].isalpha() and name not in INTERNAL]
    assert limbeck.__all__ == dir(limbeck) == sorted(public)
    assert all(getattr(limbeck, name) is getattr(api, name) for name in public)
    with pytest.raises(AttributeError, match="module 'limbeck' has no attribute 'Distill'"):
        _ = limbeck.Distill


def test_public_criteria_are_complete():
    names = {name for name, value in vars(limbeck.criteria).items() if isinstance(value, type)}
    assert sorted(limbeck.criteria.__all__) == sorted(names)
