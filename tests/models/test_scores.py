import pytest

from limbeck.models.scores import check_scores
from limbeck.models.teachers import build_teacher, check_teacher_classes
from limbeck.tasks.classification.models import build_classifier
from limbeck.tasks.semantic.models import build_segmenter

FILE = """
from torch import nn

class Twice(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x), self.model(x)

def pixels(num_classes):
    return nn.Conv2d(3, num_classes, 1)

def vector(num_classes):
    return nn.Sequential(pixels(num_classes), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def seven_pixels():
    return pixels(7)

def seven():
    return vector(7)

def twice(num_classes):
    return Twice(vector(num_classes))
"""
BUILD = {"classification": build_classifier, "semantic": build_segmenter}


@pytest.mark.parametrize(
    ("task", "function", "message"),
    [
        ("classification", "vector", None),
        ("semantic", "pixels", None),
        ("classification", "seven", "net.py:seven gives 7 scores, the data have 3 classes"),
        ("semantic", "seven_pixels", "net.py:seven_pixels gives 7 scores, the data have 3 classes"),
        (
            "classification",
            "twice",
            r"net.py:twice makes a model that gives a tuple; a classifier gives logits \(B, K\)",
        ),
        ("semantic", "twice", "net.py:twice: a segmenter returns logits"),
        ("classification", "pixels", r"gives \(1, 3, 224, 224\); a classifier gives logits \(B, K\)"),
    ],
)
def test_a_model_of_a_file_gives_a_score_for_each_class_or_is_named(tmp_path, task, function, message):
    (tmp_path / "net.py").write_text(FILE)
    name = f"{tmp_path}/net.py:{function}"
    model = BUILD[task](name, ["cat", "dog", "emu"])
    if message is None:
        check_scores(name, model, task)
        return
    with pytest.raises(ValueError, match=message):
        check_scores(name, model, task)


def test_of_a_teacher_that_gives_a_tuple_one_reads_so_and_what_to_do(tmp_path):
    (tmp_path / "net.py").write_text(FILE)
    name = f"{tmp_path}/net.py:twice"
    teacher = build_teacher(BUILD["classification"], name, ["cat", "dog", "emu"], task="classification")
    [note] = check_teacher_classes(teacher, ["cat", "dog", "emu"], [])
    assert "gives a tuple; a classifier gives logits (B, K): let it give those alone" in note
    assert "it is not measured; its features are followed" in note
