import pytest
import torch

from limbeck.data.inputs import Inputs, Preprocess
from limbeck.tasks.classification.load import load_images
from limbeck.tasks.classification.transforms import TrainImages, ValImages, augmentation


@pytest.mark.parametrize("kind", ["photo", "strong", "rand", "small", "shift", "none"])
def test_augmentation_gives_the_wanted_size_and_depends_on_epoch_and_index_alone(kind):
    images, _ = load_images("digits")
    data = TrainImages(images, augmentation(kind, 16), seed=0)
    torch.manual_seed(1)
    first = data[0, 5]["image"]
    torch.manual_seed(2)
    data[3, 9]
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8
    assert torch.equal(first, data[0, 5]["image"])
    others = [data[epoch, 5]["image"] for epoch in range(1, 6)]
    assert all(torch.equal(first, other) for other in others) == (kind == "none")


def test_erasing_blacks_out_a_rectangle():
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    erased = augmentation("none", 32, erasing=1.0)(white)
    rows, columns = (erased[0] == 0).nonzero(as_tuple=True)
    assert (erased == 0).sum() == 3 * (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) > 0
    assert (augmentation("none", 32)(white) == 255).all()


def test_validation_images_keep_their_middle_square():
    images, _ = load_images("digits")
    wide = images.take([0])
    wide = type(wide)(torch.arange(20, dtype=torch.uint8).expand(1, 3, 10, 20), [0], ["0"])
    image = ValImages(wide, 10)[0]["image"]
    assert image.shape == (3, 10, 10)
    assert image[0, 0].tolist() == list(range(5, 15))


def test_preprocessing_normalises_and_brings_to_the_models_size():
    grey = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    ready = Preprocess(Inputs(4, mean=(0.0, 0.1, 0.2), std=(0.1, 0.1, 0.2)))(grey)
    assert ready.shape == (2, 3, 4, 4)
    torch.testing.assert_close(ready[:, :, 0, 0], torch.tensor([[2.0, 1.0, 0.0]] * 2))
