import pytest
import torch
from torch import nn

from limbeck.teacher.compiled import inputs_of, part_to_compile
from tests.networks import convnet, images


class Wrapped(nn.Module):
    """Takes a list; its convnet, in a container that is never called, takes a batch and a number."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([Scaled()])
        self.spare = nn.Identity()

    def forward(self, pictures):
        return self.inner[0](torch.stack(pictures), factor=2.0)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = convnet(4)

    def forward(self, x, factor):
        return self.net(factor * x)


@pytest.mark.parametrize(
    ("paths", "part"),
    [
        (["inner.0.net.stem", "inner.0.net.body"], "inner.0"),
        (["inner.0.net.body"], "inner.0"),
        (["inner.0"], "inner.0"),
        (["inner.0.net.body", "spare"], ""),  # what holds both takes a list
        ([""], ""),
    ],
)
def test_what_is_compiled_is_the_outermost_part_that_takes_no_list(paths, part):
    assert part_to_compile(Wrapped(), paths, (list(images()),), {}) == part


def test_a_model_that_takes_tensors_is_compiled_whole():
    assert part_to_compile(convnet(4), ["body"], (images(),), {}) == ""


def test_inputs_of_a_part_are_what_it_is_called_with_and_nothing_after_it_runs():
    model, pictures = Wrapped(), list(images())
    model.inner[0].net.register_forward_hook(lambda *_: pytest.fail("went on"))
    (batch,), named = inputs_of(model, "inner.0", (pictures,), {})
    assert torch.equal(batch, torch.stack(pictures))
    assert named == {"factor": 2.0}
    assert not model.inner[0]._forward_pre_hooks


def test_inputs_of_a_part_that_is_not_called_are_none():
    assert inputs_of(Wrapped(), "spare", (list(images()),), {}) is None
