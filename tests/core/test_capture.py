import copy
import dataclasses
import threading
from functools import partial

import pytest
import torch
from torch import nn

from limbeck import Capture, Layer
from tests.networks import Block, checkpointed, compiled, convnet, images


@pytest.mark.parametrize("path", ["stem", "body_act", ""])
def test_features_and_output_are_those_of_the_plain_model(path):
    model, x = convnet(4).eval(), images()
    expected = {"stem": model[:1], "body_act": model[:5], "": model}[path](x)
    output, features = Capture(model, [Layer(path)])(x)
    assert torch.equal(features[Layer(path)], expected)
    assert torch.equal(output, model(x))


def test_gradients_of_the_model_are_unchanged_by_capture():
    model, x = convnet(4), images()
    plain = copy.deepcopy(model)
    plain(x).square().sum().backward()
    Capture(model, [Layer("stem"), Layer("body")])(x)[0].square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def test_features_come_in_the_order_of_the_layers_and_each_once():
    features = Capture(convnet(4), [Layer("body"), Layer("stem"), Layer("body")])(images())[1]
    assert list(features) == [Layer("body"), Layer("stem")]


def test_keyword_arguments_reach_the_model():
    model = convnet(4).eval()
    output, _ = Capture(model, [Layer("stem")])(input=images())
    assert torch.equal(output, model(images()))


def test_two_captures_of_one_model_do_not_disturb_each_other():
    model = convnet(4).eval()
    stem, body = Capture(model, [Layer("stem")]), Capture(model, [Layer("body")], truncate=True)
    assert list(stem(images())[1]) == [Layer("stem")]
    assert list(body(images())[1]) == [Layer("body")]
    assert stem(images())[0] is not None


def test_removed_capture_leaves_no_hook_behind():
    model = convnet(4)
    Capture(model, [Layer("stem"), Layer("")]).remove()
    assert not any(module._forward_hooks for module in model.modules())


def test_callable_capture_compiles_without_a_graph_break_and_keeps_gradients():
    model, x = convnet(4).eval(), images()
    capture = Capture(model, [Layer("body")])
    stem = model.stem.weight
    (expected,) = torch.autograd.grad(capture(x)[1][Layer("body")].square().sum(), stem)
    feature = compiled(capture)(x)[1][Layer("body")]
    (gradient,) = torch.autograd.grad(feature.square().sum(), stem)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile(model)", "model.compile()"])
def test_hooks_on_a_compiled_model_fire_in_one_graph_and_keep_gradients(in_place):
    model, x = convnet(4).eval(), images()
    stem = model.stem.weight
    (expected,) = torch.autograd.grad(model[:4](x).square().sum(), stem)
    if in_place:
        torch.compiler.reset()
        model.compile(backend="aot_eager", fullgraph=True)
    capture = Capture(model if in_place else compiled(model), [Layer("body")])
    for _ in range(2):
        output, features = capture(x)
        (gradient,) = torch.autograd.grad(features[Layer("body")].square().sum(), stem)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(output, model[:](x))


def test_hooks_that_come_after_the_first_compiled_call_never_fire_and_that_raises():
    model = compiled(convnet(4), backend="eager")
    model(images())
    with pytest.raises(RuntimeError, match=r"layer body of .* did not run .* compiled before .* torch.compiler.reset"):
        Capture(model, [Layer("body")])(images())
    torch.compiler.reset()
    assert Capture(model, [Layer("body")])(images())[1][Layer("body")].shape[1] == 8


def test_deepcopy_records_into_the_copy():
    capture = Capture(convnet(4).eval(), [Layer("body")])
    clone = copy.deepcopy(capture)
    nn.init.zeros_(clone.model.body.weight)
    nn.init.constant_(clone.model.body.bias, 7)
    assert (clone(images())[1][Layer("body")] == 7).all()
    assert (capture(images())[1][Layer("body")] != 7).all()


def test_truncated_model_stops_after_its_last_layer():
    ran = []
    model = convnet(4).eval()
    for name, module in model.named_children():
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    output, features = Capture(model, [Layer("body"), Layer("stem")], truncate=True)(images())
    assert output is None
    assert ran == ["stem", "norm", "act", "body"]
    assert torch.equal(features[Layer("body")], model[:4](images()))


def test_truncation_passes_through_a_model_that_catches_exceptions():
    def steps(block, x):
        try:
            return block.b(block.a(x))
        except Exception:
            return x

    assert Capture(Block(steps), [Layer("a")], truncate=True)(images())[0] is None


def test_a_layer_that_runs_several_times_is_read_at_the_run_that_is_named():
    def steps(block, x):
        return block.b(block.a(x)) + block.a(2 * x) + block.a(3 * x)

    model, x = Block(steps), images()
    layers = [Layer("a", run=2), Layer("a", run=0), Layer("b")]
    capture = Capture(model, layers)
    for _ in range(2):
        _, features = capture(x)
        assert torch.equal(features[layers[0]], model.a(3 * x))
        assert torch.equal(features[layers[1]], model.a(x))
    assert [str(layer) for layer in layers] == ["a[2]", "a[0]", "b"]
    assert str(Layer("a", run=2, label="/8")) == "a/8"
    with pytest.raises(RuntimeError, match="a of Block ran 3 times in this forward, so run=3 is not there"):
        Capture(model, [Layer("a", run=3)])(x)
    assert Capture(model, [Layer("a", run=1)], truncate=True)(x)[0] is None


def test_recompute_of_activation_checkpointing_is_not_recorded():
    reads, runs = [], []
    model = Block(checkpointed)
    model.a.register_forward_hook(lambda *_: runs.append("a"))
    layer = Layer("a", read=lambda output: reads.append("a") or output)
    capture = Capture(model, [layer])
    for _ in range(2):
        output, features = capture(images())
        (output.mean() + features[layer].square().mean()).backward()
    assert len(runs) == 4
    assert len(reads) == 2


def test_read_that_saves_tensors_goes_with_activation_checkpointing():
    gradients = []
    layer = Layer("a", read=lambda output: output.exp() * output.sigmoid())
    for steps in (checkpointed, lambda block, x: block.b(block.a(x))):
        model = Block(steps)
        output, features = Capture(model, [layer])(images())
        (output.mean() + features[layer].square().mean()).backward()
        gradients.append(model.a.weight.grad)
    torch.testing.assert_close(*gradients)


def test_features_are_read_under_inference_mode():
    model = convnet(4).eval()
    capture = Capture(model, [Layer("stem"), Layer("body", read=lambda output: output * 2)])
    with torch.inference_mode():
        _, features = capture(images())
    assert torch.equal(features[capture.layers[1]], 2 * model[:4](images()))


def test_gradients_through_activation_checkpointing_equal_those_without():
    gradients = []
    for steps in (checkpointed, lambda block, x: block.b(block.a(x))):
        model = Block(steps)
        output, features = Capture(model, [Layer("a")])(images())
        (output.mean() + features[Layer("a")].square().mean()).backward()
        gradients.append(model.a.weight.grad)
    torch.testing.assert_close(*gradients)


def run_b_only(block, x):
    return block.b(x)


def run_a_twice(block, x):
    return block.a(block.a(x))


def change_a_in_place(block, x):
    return block.b(torch.relu_(block.a(x)))


@dataclasses.dataclass
class Output:
    """As models of some libraries give it."""

    loss: None
    scores: torch.Tensor


ERRORS = {
    "did not run": (run_b_only, "a", RuntimeError, "layer a of Block did not run in this forward; match one that runs"),
    "ran twice": (run_a_twice, "a", RuntimeError, "layer a of Block ran twice .* match one that runs once"),
    "changed in place": (change_a_in_place, "a", RuntimeError, "changed in place .* or set its inplace=False"),
    "tuple": (lambda block, x: (x, x), "", TypeError, r"gives a tuple, .* for example Layer\('', read=lambda output:"),
    "dict": (lambda block, x: {"x": x}, "", TypeError, "layer output of Block gives a dict, not a Tensor; say how to"),
    "key": (lambda block, x: {"n": 1, "x": x}, "", TypeError, r"read=lambda output: output\['x'\]\)$"),
    "second": (lambda block, x: [None, x], "", TypeError, r"read=lambda output: output\[1\]\)$"),
    "object": (lambda block, x: Output(None, x), "", TypeError, r"an? Output, .* read=lambda output: output.scores\)$"),
}


@pytest.mark.parametrize(("steps", "path", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_feature_that_cannot_be_used_raises_and_names_the_remedy(steps, path, error, message):
    capture = Capture(Block(steps), [Layer(path)])
    with pytest.raises(error, match=message):
        capture(images())


def test_read_that_fails_says_of_what_it_was_given():
    capture = Capture(Block(lambda block, x: {"scores": x}), [Layer("", read=lambda output: output["score"])])
    with pytest.raises(KeyError, match="score") as error:
        capture(images())
    assert error.value.__notes__ == ["layer output of Block, whose read failed, gives a dict of 'scores'"]


def test_list_of_modules_which_never_runs_is_refused_with_one_that_it_holds():
    model = Block(lambda block, x: block.parts[0](x))
    model.parts = nn.ModuleList([nn.Identity()])
    with pytest.raises(RuntimeError, match=r"parts of Block did not run .*: a ModuleList only .*, such as parts.0$"):
        Capture(model, [Layer("parts")])(images())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Layer(nn.ReLU()), TypeError, r"ReLU\(\) is no layer; name one by its path"),
        (lambda: Layer("", read="scores"), TypeError, r"read is 'scores'; .* as lambda output: output\['scores'\]"),
        (lambda: Layer("a", run=-1), ValueError, "run is -1; runs are counted from 0"),
        (lambda: Capture(convnet(4), ["stem"]), TypeError, r"'stem' is no Layer; .* pass Layer\('stem'\)"),
        (lambda: Capture(convnet(4), "stem"), TypeError, r"layers is 'stem'; pass a list"),
        (lambda: Capture(convnet(4), Layer("stem")), TypeError, r"layers is Layer.*; pass a list"),
    ],
)
def test_what_is_no_layer_is_refused_with_the_remedy(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_model_that_runs_in_another_thread_meanwhile_is_not_what_is_read():
    def steps(block, x):
        if threading.current_thread() is threading.main_thread():
            beside = threading.Thread(target=block, args=(x + 1,))
            beside.start()
            beside.join()
        return block.a(x)

    model = Block(steps)
    output, features = Capture(model, [Layer("a")])(images())
    assert torch.equal(features[Layer("a")], output)


def test_capture_that_runs_in_another_thread_meanwhile_is_refused_with_the_remedy():
    told = []

    def steps(block, x):
        if threading.current_thread() is threading.main_thread():
            beside = threading.Thread(target=capture_meanwhile)
            beside.start()
            beside.join()
        return block.a(x)

    def capture_meanwhile():
        with pytest.raises(RuntimeError, match=r"Block is read in another thread just now; .* by copy.deepcopy"):
            capture(images())
        told.append(True)

    capture = Capture(Block(steps), [Layer("a")])
    output, features = capture(images())
    assert told == [True]
    assert torch.equal(features[Layer("a")], output)


@pytest.mark.parametrize(
    ("path", "hint"), [("bodi", "nearest: body"), ("bloks.9", "its first: stem, norm"), ("stem.x", "nearest: .*stem")]
)
def test_missing_layer_raises_and_names_the_nearest_or_the_first(path, hint):
    with pytest.raises(ValueError, match=f"Sequential has no layer '{path}'; {hint}"):
        Capture(convnet(4), [Layer(path)])


def test_failed_construction_leaves_no_hook_behind():
    model = convnet(4)
    with pytest.raises(ValueError, match="no layer 'bodi'"):
        Capture(model, [Layer("stem"), Layer("bodi")])
    assert not any(module._forward_hooks for module in model.modules())


def test_module_that_was_replaced_after_it_was_hooked_raises_with_the_remedy():
    model = convnet(4)
    capture = Capture(model, [Layer("norm")])
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(RuntimeError, match=r"norm .* was a BatchNorm2d .* now, a SyncBatchNorm; replace .* first"):
        capture(images())


class Maps:
    """Several maps, as an object that torch cannot look into."""

    def __init__(self, *maps):
        self.maps = maps


@pytest.mark.parametrize("kind", [lambda *maps: list(maps), Maps], ids=["list", "object"])
@pytest.mark.parametrize("computed", [False, True], ids=["one of them", "computed from one"])
@pytest.mark.parametrize("changed", [0, 1])
def test_map_of_several_that_was_changed_in_place_is_refused(kind, computed, changed):
    def read(output):
        output = getattr(output, "maps", output)[1]
        return output * 2 if computed else output[:, :2]

    body = Block(lambda block, x: kind(block.a(x), block.b(x)))
    model = nn.Sequential(body, nn.Identity())
    model[1].forward = lambda maps: getattr(maps, "maps", maps)[changed].relu_()
    capture = Capture(model, [Layer("0", read)])
    if changed == 0 and not computed:
        assert torch.equal(capture(images())[1][Layer("0", read)], body.b(images())[:, :2])
    else:
        with pytest.raises(RuntimeError, match=r"layer 0 of Sequential was changed in place"):
            capture(images())


def test_label_of_a_layer_is_in_its_name_alone():
    assert str(Layer("backbone", label="/8")) == "backbone/8"
    assert Layer("backbone", label="/8") == Layer("backbone")


def test_layer_may_be_changed_in_place_by_its_own_children():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), nn.Conv2d(4, 4, 3))
    feature = Capture(model, [Layer("0")])(images())[1][Layer("0")]
    assert torch.equal(feature, model[0](images()))


def test_capture_works_again_after_a_forward_that_raised():
    model = convnet(4).eval()
    capture = Capture(model, [Layer("body")])
    with pytest.raises(RuntimeError, match="expected input"):
        capture(torch.zeros(1, 1, 16, 16))
    model(images())  # by itself, the model records nothing
    assert torch.equal(capture(images())[1][Layer("body")], model[:4](images()))


def test_one_path_read_in_two_ways_gives_two_features():
    first, second = (Layer("", partial(torch.narrow, dim=1, start=start, length=2)) for start in (0, 3))
    output, features = Capture(convnet(4), [first, second])(images())
    assert torch.equal(features[first], output[:, :2])
    assert torch.equal(features[second], output[:, 3:])


# --- what a submodule takes ---


def relu_net(*, inplace):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Conv2d(4, 2, 3), nn.Flatten())


BEFORE = Layer("2", input=True)


@pytest.mark.parametrize("truncate", [False, True])
def test_input_of_an_activation_is_the_feature_before_it(truncate):
    model = relu_net(inplace=False).eval()
    _, features = Capture(model, [BEFORE, Layer("2")], truncate=truncate)(images())
    assert torch.equal(features[BEFORE], model[:2](images()))
    assert torch.equal(features[Layer("2")], features[BEFORE].relu())
    assert features[BEFORE].min() < 0
    assert str(BEFORE) == "2:input"


def test_input_may_be_read_too():
    layer = Layer("2", read=lambda x: x[:, :2], input=True)
    model = relu_net(inplace=False).eval()
    assert torch.equal(Capture(model, [layer])(images())[1][layer], model[:2](images())[:, :2])


def test_input_that_the_submodule_changes_in_place_raises_with_the_remedy():
    with pytest.raises(
        RuntimeError, match=r"layer 2:input of Sequential was changed in place .* set its inplace=False"
    ):
        Capture(relu_net(inplace=True), [BEFORE])(images())


def test_truncated_model_stops_before_the_submodule_whose_input_is_read():
    model, ran = relu_net(inplace=True).eval(), []
    model[2].register_forward_hook(lambda *_: ran.append("relu"))
    output, features = Capture(model, [BEFORE], truncate=True)(images())
    assert (output, ran) == (None, [])
    assert torch.equal(features[BEFORE], model[:2](images()))


def test_input_by_keyword_is_refused():
    model = Block(lambda block, x: block.a(input=x))
    with pytest.raises(TypeError, match="layer a:input of Block gives a NoneType"):
        Capture(model, [Layer("a", input=True)])(images())


def test_removed_capture_leaves_no_hook_behind_on_an_input():
    model = relu_net(inplace=False)
    Capture(model, [BEFORE]).remove()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_input_compiles_without_a_graph_break():
    capture = Capture(relu_net(inplace=False).eval(), [BEFORE])
    torch.testing.assert_close(compiled(capture)(images())[1][BEFORE], capture(images())[1][BEFORE])
