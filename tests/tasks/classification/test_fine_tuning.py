"""What the recipe makes of trained weights, and of mixed images."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from limbeck.tasks.classification.mixing import MixedImages, Mixing
from limbeck.tasks.classification.recipe import Data, distill, train
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.loop import train as run
from limbeck.training.recipe import Budget
from tests.nets import small

NETS = Path(__file__).parents[2] / "nets.py"
DATA = Data("digits", images=64, augment="shift")
BUDGET = Budget(epochs=1, batch_size=32, workers=0)


@pytest.fixture
def other_classes(tmp_path):
    """A file of a classifier for three classes."""
    torch.manual_seed(5)
    save_file(small(num_classes=3).state_dict(), tmp_path / "three.safetensors")
    return str(tmp_path / "three.safetensors")


def test_all_but_a_new_classifier_learns_slowly_and_the_run_says_so(other_classes, tmp_path, capsys):
    recipe = train(DATA, f"{NETS}:small", weights=other_classes, size=8, budget=BUDGET)
    assert {name for name, _ in recipe.student.named_parameters()} - recipe.loaded == {"3.3.weight", "3.3.bias"}
    run(recipe, tmp_path / "run")
    shown = " ".join(capsys.readouterr().out.split())
    assert "start from trained weights, and learn at a rate of 0.00354; what is new at 0.0354" in shown


def test_a_model_from_scratch_has_nothing_that_learns_slowly(tmp_path):
    assert train(DATA, f"{NETS}:small", size=8, budget=BUDGET).loaded == frozenset()


def test_freezing_trains_the_new_classifier_alone(other_classes, tmp_path):
    budget = Budget(epochs=1, batch_size=32, workers=0, freeze=True)
    recipe = train(DATA, f"{NETS}:small", weights=other_classes, size=8, budget=budget)
    before = {name: value.clone() for name, value in recipe.student.state_dict().items()}
    run(recipe, tmp_path / "run", quiet=True)
    after = recipe.student.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"3.3.weight", "3.3.bias"}


def test_a_finished_run_as_student_learns_slowly_throughout(tmp_path):
    run(train(DATA, f"{NETS}:small", size=8, budget=BUDGET), tmp_path / "run", quiet=True)
    again = train(DATA, str(tmp_path / "run"), size=8, budget=BUDGET)
    assert again.loaded == {name for name, _ in again.student.named_parameters()}


def test_mixed_images_train_a_student_beside_a_teacher(tmp_path):
    options = {"teacher_options": TeacherOptions(teacher_check=False), "teacher_size": 8, "size": 8}
    mixing = Mixing(mixup=0.2, cutmix=1.0)
    recipe = distill(DATA, f"{NETS}:big", f"{NETS}:small", mixing=mixing, budget=BUDGET, **options)
    assert isinstance(recipe.train_data, MixedImages)
    assert recipe.task.truth(recipe.collate([recipe.train_data[0, 1]])).shape == (1,)
    assert run(recipe, tmp_path / "run", quiet=True).finished


def test_methods_that_ask_for_the_true_class_refuse_mixed_images(tmp_path):
    with pytest.raises(ValueError, match="asks for the true class"):
        distill(
            DATA,
            f"{NETS}:big",
            f"{NETS}:small",
            size=8,
            matching=MatchOptions(method=("DKD",)),
            mixing=Mixing(mixup=0.2),
            budget=BUDGET,
        )
