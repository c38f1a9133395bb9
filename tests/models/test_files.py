import pytest
import timm
from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.models.files import function_in, inputs_of, model_at
from limbeck.tasks import task_kind
from limbeck.tasks.classification.models import build_classifier

FILE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
from beside import WIDTH

@dataclass
class Config:
    width: int = WIDTH

def ten():
    return nn.Linear(Config().width, 10)

def any_number(num_classes):
    return nn.Linear(Config().width, num_classes)

def nothing(num_classes):
    return 3

def broken(num_classes):
    raise KeyError("weights")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 7")
    (tmp_path / "nets.py").write_text(FILE)
    return tmp_path / "nets.py"


def test_a_file_may_hold_dataclasses_and_import_what_lies_beside_it(file):
    assert function_in(file, "Config")().width == 7


def test_a_function_is_given_the_number_of_classes_where_it_takes_it(file):
    assert model_at(f"{file}:any_number", 4).out_features == 4
    assert model_at(f"{file}:ten", 4).out_features == 10
    with pytest.raises(ValueError, match=r"gives a int; it should give an nn\.Module"):
        model_at(f"{file}:nothing", 4)


def test_a_file_named_as_a_module_that_is_imported_hides_it_from_nobody(tmp_path):
    (tmp_path / "json.py").write_text("def net(num_classes):\n    from torch import nn\n    return nn.Identity()")
    assert isinstance(model_at(f"{tmp_path}/json.py:net", 2), nn.Identity)
    import json

    assert json.dumps([1]) == "[1]"


def test_a_function_that_raises_is_named_with_its_file_and_the_cause_kept(file):
    with pytest.raises(ValueError, match=r"nets.py:broken, which .* failed: KeyError: 'weights' \(line 21\)") as raised:
        model_at(f"{file}:broken", 4)
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize("parameters", ["n_classes", "width, num_classes"])
def test_a_function_that_is_called_otherwise_says_with_what(tmp_path, parameters):
    (tmp_path / "net.py").write_text(f"def net({parameters}): pass")
    with pytest.raises(ValueError, match=rf"net.py:net takes \({parameters}\), but is called with num_classes=4 alone"):
        model_at(f"{tmp_path}/net.py:net", 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\ndef f(:\n", r"bad.py cannot be run: SyntaxError: .*\(bad.py, line 2\)"),
        ("\nimport no_such_package", r"bad.py cannot be run: ModuleNotFoundError: .*'no_such_package' \(line 2\)"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_the_line(tmp_path, content, message):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        function_in(tmp_path / "bad.py", "f")
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("function", ["tem", "torch", ""])
def test_the_functions_of_a_file_are_listed_where_none_of_them_is_named(file, function):
    with pytest.raises(ValueError, match="in it are: Config, ten, any_number, nothing, broken"):
        function_in(file, function)


def test_a_file_without_a_function_says_how_to_write_it(file):
    with pytest.raises(ValueError, match=r"nets.py is a file: write .*nets.py:FUNCTION; in it are: Config, ten"):
        build_classifier(str(file), ["a", "b"])


def test_a_model_says_its_normalisation_as_those_of_timm_do():
    model = nn.Linear(1, 1)
    assert inputs_of(model, "net.py:f", 8) == Inputs(8)
    model.pretrained_cfg = {"mean": [0.5, 0.5, 0.5], "input_size": (3, 32, 32)}
    assert inputs_of(model, "net.py:f", 8) == Inputs(8, mean=(0.5, 0.5, 0.5))
    model.pretrained_cfg = timm.create_model("vit_tiny_patch16_224").pretrained_cfg
    assert inputs_of(model, "net.py:f").std == (0.5, 0.5, 0.5)
    for key, wrong in (("mean", (127.5, 127.5, 127.5)), ("mean", 0.5), ("std", (0.5,)), ("std", (0, 1, 1))):
        model.pretrained_cfg = {key: wrong}
        with pytest.raises(ValueError, match=f"net.py:f: the {key} of .* not three numbers from 0"):
            inputs_of(model, "net.py:f")


@pytest.mark.parametrize("task", ["classification", "semantic"])
def test_a_model_of_a_file_is_given_images_as_it_says(tmp_path, task):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\n"
        "def f(num_classes):\n"
        "    model = nn.Conv2d(3, num_classes, 1)\n"
        "    model.pretrained_cfg = dict(mean=(0, 0, 0), std=(1, 1, 1))\n"
        "    return model\n"
    )
    inputs = task_kind(task).build(f"{file}:f", ["cat", "dog"]).inputs
    assert (inputs.mean, inputs.std) == ((0, 0, 0), (1, 1, 1))
