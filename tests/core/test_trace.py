import pytest
import torch
from torch import nn

from limbeck.core.trace import trace, tracing
from tests.networks import Block, convnet, images


def test_calls_come_in_the_order_in_which_they_returned_with_what_went_in_and_out():
    model = convnet(4).eval()
    output, calls = trace(model, images())
    assert [call.path for call in calls] == [*dict(model.named_children()), ""]
    assert all(model.get_submodule(call.path) is call.module for call in calls)
    assert torch.equal(output, model(images()))
    assert calls[1].args[0] is calls[0].output
    assert calls[-1].output is output


def test_module_that_runs_twice_is_listed_twice_and_one_that_does_not_run_never():
    _, calls = trace(Block(lambda block, x: block.a(input=block.a(x))), {"x": images()})
    assert [call.path for call in calls] == ["a", "a", ""]
    assert calls[1].kwargs["input"] is calls[0].output


def test_module_that_changes_its_input_in_place_is_seen_by_the_versions():
    _, (convolution, relu, _) = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), images())
    assert convolution.output is relu.output
    assert relu.versions_after != convolution.versions_after


@pytest.mark.parametrize("fails", [False, True])
def test_modes_are_restored_and_no_hook_stays(fails):
    model = convnet(4).train()
    if fails:
        with pytest.raises(RuntimeError):
            trace(model, torch.zeros(1, 1, 16, 16))
    else:
        trace(model, images())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_tracing_sees_a_part_that_is_called_alone():
    model = nn.Sequential(convnet(4), convnet(4))
    with torch.inference_mode(), tracing(model) as calls:
        model[1](images())
    assert [call.path for call in calls][-2:] == ["1.head", "1"]
