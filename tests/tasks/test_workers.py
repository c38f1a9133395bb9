import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from limbeck.tasks.classification import transforms as classification
from limbeck.tasks.classification.dataset import Images
from limbeck.tasks.detection import transforms as detection
from limbeck.tasks.detection.dataset import Annotated, Objects
from limbeck.tasks.semantic import transforms as semantic
from limbeck.tasks.semantic.classes import Labels, meaning_of
from limbeck.tasks.semantic.dataset import Masks
from limbeck.training.loaders import Collate, Telling
from limbeck.training.signals import outlive_signals

HEIGHT, WIDTH = 30, 40


@pytest.fixture
def datasets(tmp_path):
    """Of each task what is trained on, and what is measured on."""
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.effect_noise((WIDTH, HEIGHT), 50).save(image)
    Image.new("L", (WIDTH, HEIGHT), 1).save(mask)
    images = Images([image] * 3, [0, 1, 0], ["cat", "dog"])
    masks = Masks([image], [mask], Labels(["road", "car"], meaning_of({0: "road", 1: "car"}, None)))
    box = torch.tensor([[2.0, 3, 20, 25]])
    annotated = Annotated(
        id=1,
        path=image,
        size=(HEIGHT, WIDTH),
        boxes=box,
        labels=torch.zeros(1, dtype=torch.int64),
        crowd=torch.zeros(1, dtype=torch.bool),
        areas=torch.tensor([396.0]),
        outlines=[[[2, 3, 20, 3, 20, 25]]],
    )
    objects = Objects([annotated], ["cell"], [1])
    train = [
        classification.TrainImages(images, classification.augmentation("strong", 16), seed=0),
        semantic.TrainMasks(masks, semantic.augmentation((16, 24), 20), seed=0),
        detection.TrainObjects(objects, detection.augmentation([20], 40, colour=0.2), seed=0, masks=True),
    ]
    val = [
        classification.ValImages(images, 16),
        semantic.ValMasks(masks, 20),
        detection.ValObjects(objects, 20, 40),
    ]
    return train, val


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]


def test_datasets_of_every_task_go_through_pickle_as_they_are(datasets):
    train, val = datasets
    for keys, each in (((2, 0), train), (0, val)):
        for dataset in each:
            assert_same(pickle.loads(pickle.dumps(dataset))[keys], dataset[keys])


def the_only(samples):
    return samples[0]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])  # of macOS and Windows, and of Python 3.14
def test_datasets_of_every_task_are_loaded_by_workers_that_do_not_fork(datasets, method):
    together = ConcatDataset(datasets[1])  # of all tasks at once: a worker takes seconds to start
    given = {"collate_fn": Collate(the_only), "worker_init_fn": outlive_signals}
    loader = DataLoader(Telling(together), 1, num_workers=1, multiprocessing_context=method, **given)
    for place, sample in enumerate(loader):
        assert_same(sample, together[place])
