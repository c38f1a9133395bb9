"""An example that the student or the teacher cannot be called with: which it is, and what to pass instead."""

from collections import UserDict

import pytest
import torch
from torch import nn

from limbeck import Distiller, Match, prepare_teacher
from tests.networks import Block, TokenNet, convnet, images

LABELS = torch.arange(2)
SHAPE = r"a Tensor \(2, 3, 16, 16\) of float32"


def distiller_of(student=None, teacher=None, **options):
    return Distiller(student or convnet(4), teacher or convnet(4), [Match("", "", nn.MSELoss())], **options)


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ((images(), LABELS), rf"\({SHAPE}, a Tensor \(2,\) of int64\), but the student takes Sequential.forward"),
        ((3, 16, 16), r"\(3, 16, 16\), but the student takes .* \(too many positional arguments\)"),
        ({"pixels": images()}, rf"{{'pixels': {SHAPE}}}, but the student takes .* \(missing a req"),
        ((), r"\(\), but the student takes .*\(missing a required argument: 'input'\)"),
    ],
    ids=["labels", "shape", "name", "nothing"],
)
def test_arguments_that_the_student_does_not_take_are_told_with_the_remedy(example, told):
    with pytest.raises(TypeError, match=f"^example is {told}.*without labels, as example=\\(images,\\)$"):
        distiller_of(example=example)


@pytest.mark.parametrize("example", [None, 3, "images"])
def test_what_is_no_example_is_refused(example):
    with pytest.raises(TypeError, match=f"example is a {type(example).__name__}; it is what the student is"):
        distiller_of(example=example)


def test_teacher_that_takes_others_may_be_given_inputs_of_its_own():
    student, teacher = TokenNet(4), convnet(4)
    matches = [Match("", "", lambda student, teacher: student.mean())]
    matches[0].criterion.any_shape = True
    with pytest.raises(TypeError, match=r"the teacher takes Sequential.* as example=\(images,\); or what the"):
        Distiller(student, teacher, matches, example={"x": images()})
    with pytest.raises(TypeError, match=r"teacher_inputs is \{'y': .* as teacher_inputs=\(images,\)$"):
        Distiller(student, teacher, matches, example={"x": images()}, teacher_inputs={"y": images()})


class InPlace(nn.Module):
    """Brings what it is called with to mean 0 where it is."""

    def forward(self, images):
        return images.sub_(images.mean())


def test_teacher_that_changes_the_students_inputs_in_place_is_refused_and_may_have_a_copy():
    teacher = nn.Sequential(InPlace(), convnet(4))
    with pytest.raises(ValueError, match=r"the teacher, a Sequential, changes in place .* teacher_inputs=images.clone"):
        distiller_of(teacher=teacher, example=images())
    distiller = distiller_of(teacher=teacher, example=images(), teacher_inputs=images())
    given = images()
    assert distiller(given, teacher_inputs=given.clone()).loss > 0
    assert torch.equal(given, images())


def test_student_that_changes_its_inputs_in_place_is_its_own_affair():
    student = nn.Sequential(InPlace(), convnet(4))
    assert distiller_of(student=student, example=images())(images()).loss > 0


def test_teacher_that_is_prepared_is_told_of_in_the_same_way():
    with pytest.raises(TypeError, match=r"the teacher takes Sequential.forward\(input.* as example=\(images,\)$"):
        prepare_teacher(convnet(4), ["body"], example=(images(), LABELS))


def test_failure_within_a_model_has_a_note_of_the_example():
    for role, make in (
        ("student", lambda: distiller_of(example=images().byte())),
        ("student", lambda: distiller_of(example=images()[:, :1])),
        ("teacher", lambda: distiller_of(example=images(), teacher_inputs=images().double())),
    ):
        with pytest.raises(RuntimeError) as error:
            make()
        (note,) = error.value.__notes__
        assert note.startswith(f"while the {role}, a Sequential, was called with ")
        assert " a Tensor (2, " in note


def test_note_says_where_model_and_example_are_where_they_are_not_on_a_cpu_in_float32():
    with pytest.raises((RuntimeError, TypeError)) as error:
        distiller_of(example=images().to("meta"))
    assert "which is a Tensor (2, 3, 16, 16) of float32 on meta" in error.value.__notes__[0]
    with pytest.raises(RuntimeError) as error:
        distiller_of(teacher=convnet(4).bfloat16(), example=images())
    assert "while the teacher, a Sequential in bfloat16, was called with example" in error.value.__notes__[0]


def test_list_of_images_which_is_taken_for_arguments_has_a_note_of_it():
    student = Block(lambda block, x: block.a(torch.stack(x)))
    student.forward = lambda inputs, targets=None: student.steps(student, inputs)
    with pytest.raises(TypeError) as error:
        Distiller(student, convnet(4), [Match("a", "stem", nn.MSELoss())], example=list(images()))
    assert error.value.__notes__[0].endswith("for a model that takes a list pass example=([...],)")


def test_example_may_be_any_mapping_as_that_of_a_processor():
    batch = UserDict(x=images())
    distiller = Distiller(TokenNet(4), TokenNet(4, seed=1), [Match("block", "block", nn.MSELoss())], example=batch)
    assert distiller(**batch, teacher_inputs=batch).loss > 0


def test_example_of_a_model_that_takes_anything_is_passed_on():
    class Anything(nn.Module):
        def forward(self, *args, **kwargs):
            return args[0].mean((1, 2, 3)) * nn.Parameter(torch.ones(()))

    distiller_of(Anything(), Anything(), example=(images(), 1))
