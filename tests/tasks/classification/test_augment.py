import pytest

from limbeck.tasks.classification.recipe import Data, augment_of, train
from limbeck.training.recipe import Budget
from tests.tasks.classification.test_fine_tuning import NETS


@pytest.mark.parametrize(("size", "augment"), [(8, "small"), (64, "small"), (65, "photo"), (224, "photo")])
def test_small_images_are_shifted_and_large_ones_cropped(size, augment):
    assert augment_of(Data("digits"), size) == augment
    assert augment_of(Data("digits", augment="strong"), size) == "strong"


def test_the_run_says_how_its_images_are_augmented():
    recipe = train(Data("digits"), f"{NETS}:small", size=8, budget=Budget(workers=0))
    assert "augmented (small) at 8 px" in recipe.notes[-1]
