import pytest
from torch import nn

from limbeck.models.files import function_in, model_at

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


def test_a_function_that_raises_is_named_with_its_file(file):
    with pytest.raises(KeyError) as raised:
        model_at(f"{file}:broken", 4)
    assert raised.value.__notes__ == [f"raised by {file}:broken, which should make the model"]
