import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from limbeck import (
    Distiller,
    EarlyDecay,
    Match,
    WarmUp,
    conv1x1,
    conv_bn,
    conv_bn_relu_if_positive,
    criteria,
    tokens_to_map,
)
from limbeck.data.inputs import Inputs
from limbeck.methods.pairing import make_matches, used_in
from limbeck.methods.predictions import PREDICTIONS
from limbeck.methods.spelling import find_method, weight_of
from limbeck.methods.table import METHODS
from limbeck.models.model import Model
from limbeck.training.preflight import preflight
from tests.places import ROOT

NETS = ROOT / "tests" / "nets.py"
LABELS = torch.arange(4) % 3
BOXES = [torch.tensor([[0.1, 0.2, 0.6, 0.7]])] * 4


class Stage(nn.Module):
    """Half the size, and an activation that is a module of its own."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.conv(x))


CLASSES = ["a", "b", "c"]


def vit(width=16, *, two_heads=False, depth=3):
    made = VisionTransformerDistilled if two_heads else VisionTransformer
    return made(img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=4, num_classes=3)


def net(width, stages=3):
    widths = [3, *(width * 2**i for i in range(stages))]
    body = [Stage(*pair) for pair in pairwise(widths)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3))


def matches_of(method, student=None, teacher=None, student_layers=(), teacher_layers=(), **options):
    torch.manual_seed(0)
    models = [Model(module, Inputs(32), CLASSES) for module in (student or net(4), teacher or net(6))]
    return make_matches(method, *models, student_layers=student_layers, teacher_layers=teacher_layers, **options)


def layers_of(matches):
    return [(tuple(map(str, match.student)), tuple(map(str, match.teacher))) for match in matches]


def test_options_that_are_not_named_are_refused_in_optimised_python_too():
    code = "from limbeck.methods.spelling import find_method; find_method('KD:2')"
    ran = subprocess.run([sys.executable, "-O", "-c", code], check=False, capture_output=True, text=True)
    assert "KD:2: options are written KD:option=value" in ran.stderr


def test_every_public_criterion_is_a_method():
    assert {method.criterion.__name__ for method in METHODS.values()} == {*criteria.__all__, "MSELoss"}


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].reads not in (*PREDICTIONS, "named")])
def test_every_method_distils_a_pair_of_networks_by_its_name_alone(name):
    torch.manual_seed(0)
    student, teacher, images = net(4), net(6), torch.randn(4, 3, 32, 32)
    if name in ("DeiT", "ViTKD"):  # these are for transformers
        student, teacher = vit(two_heads=name == "DeiT"), vit(24)
    truth = BOXES if name in ("FGD", "ForegroundTransform") else LABELS
    matches = matches_of(name, student, teacher)
    distiller = Distiller(student, teacher, matches, example=(images,), truth=truth)
    rows = preflight(distiller, (images,), truth=truth)
    assert len(rows) == len(matches)
    assert all(row.value > 0 for row in rows)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("KD", [("output", "output")]),
        ("CWD", [("2", "2")]),
        ("AttentionTransfer", [("0", "0"), ("1", "1"), ("2", "2")]),
        ("OFAKD", [("0", "output"), ("1", "output"), ("2", "output"), ("output", "output")]),
        ("OFD", [("0.act:input", "0.act:input"), ("1.act:input", "1.act:input"), ("2.act:input", "2.act:input")]),
    ],
)
def test_a_method_reads_where_its_paper_does(name, layers):
    assert layers_of(matches_of(name)) == [((here,), (there,)) for here, there in layers]


def test_review_takes_the_students_stages_and_the_teachers_before_activation_and_both_pooled():
    (pair,) = layers_of(matches_of("ReviewKD"))
    assert pair == (("0", "1", "2", "2"), ("0.act:input", "1.act:input", "2.act:input", "2"))


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (vit(), net(6), ("norm:class", "2:mean")),
        (net(4), vit(), ("2:mean", "norm:class")),
        (vit(), vit(24), ("norm:class", "norm:class")),
    ],
    ids=["student", "teacher", "both"],
)
def test_where_a_class_token_alone_is_classified_it_meets_it_or_the_mean_of_a_map(student, teacher, layers):
    here, there = layers
    assert layers_of(matches_of("ChannelTransform", student, teacher)) == [((here,), (there,))]
    maps = (here.partition(":")[0],), (there.partition(":")[0],)
    assert layers_of(matches_of("ChannelTransform", student, teacher, layers="last-map")) == [maps]
    assert layers_of(matches_of("CWD", student, teacher)) == [maps]  # which asks where a channel looks


def test_the_embedding_of_any_two_networks_is_compared_where_it_is_asked_for():
    student, teacher, images = net(4), net(6), torch.randn(4, 3, 32, 32)
    matches = matches_of("FitNet", student, teacher, layers="embedding")
    assert layers_of(matches) == [(("2:mean",), ("2:mean",))]
    (row,) = preflight(Distiller(student, teacher, matches, example=(images,)), (images,))
    assert row.value > 0
    assert not row.advice


def test_vitkd_takes_the_first_two_blocks_and_the_last_feature_with_its_norm():
    (match,) = matches_of("ViTKD", vit(), vit(24, depth=5))
    assert layers_of([match]) == [(("blocks.0", "blocks.1", "norm"),) * 2]
    assert {layer.read for layer in match.student + match.teacher} == {tokens_to_map(prefix=1)}
    assert match.measuring


@pytest.mark.parametrize(("student", "teacher", "role"), [(net(4), vit(), "student"), (vit(), net(4), "teacher")])
def test_vitkd_refuses_what_is_no_plain_transformer(student, teacher, role):
    with pytest.raises(ValueError, match=rf"the {role}, Sequential, is no plain transformer .* OFAKD and Channel"):
        matches_of("ViTKD", student, teacher)


def test_the_exits_of_a_transformer_are_at_the_blocks_that_the_paper_takes_with_their_class_token():
    student = vit(depth=12)
    matches = matches_of("OFAKD:exponent=1.5", student, net(6))
    paths = [f"blocks.{index}" for index in (1, 3, 9, 11)]
    assert layers_of(matches) == [((path,), ("output",)) for path in [*paths, "output"]]
    assert [match.criterion.stage for match in matches[:-1]] == [1, 2, 3, 4]
    assert {match.criterion.exponent for match in matches} == {1.5}
    Distiller(student, net(6), matches, example=(torch.randn(2, 3, 32, 32),), truth=LABELS[:2])
    assert [match.criterion.project.others for match in matches[:-1]] == [1] * 4


def test_the_exits_of_a_convolutional_network_count_its_stages_from_the_last():
    assert [match.criterion.stage for match in matches_of("OFAKD")[:-1]] == [2, 3, 4]
    assert layers_of(matches_of("OFAKD", vit(depth=2), net(6))) == [
        ((path,), ("output",)) for path in ("blocks.0", "blocks.1", "output")
    ]


def test_an_exit_can_be_named_with_its_stage():
    (match,) = matches_of("OFAKD:stage=2", student_layers=("1",), teacher_layers=("",))
    assert layers_of([match]) == [(("1",), ("output",))]
    assert match.criterion.stage == 2


@pytest.mark.parametrize("method", ["DeiT", "KD:temperature=3", "NKD"])
def test_a_method_on_class_scores_is_read_at_the_distillation_head(method):
    student = vit(two_heads=True)
    matches = matches_of(method, student, net(6), layers="distillation-head")
    assert layers_of(matches) == [(("head_dist",), ("output",))]
    assert student.distilled_training


def test_what_has_no_distillation_head_and_what_cannot_be_weighed_there_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no distillation token .* deit_tiny_distilled_patch16_224"):
        matches_of("DeiT")
    with pytest.raises(ValueError, match="DKD at the distillation head needs a weight that is a number"):
        matches_of("DKD", vit(two_heads=True), net(6), layers="distillation-head")
    with pytest.raises(ValueError, match="DeiT at the distillation head needs a weight that is a number"):
        matches_of("DeiT", vit(two_heads=True), net(6), weight="auto")


def test_stages_are_paired_from_the_deepest():
    assert layers_of(matches_of("AttentionTransfer", net(4, 2), net(4, 3))) == [(("0",), ("1",)), (("1",), ("2",))]


def test_a_published_weight_is_used_and_each_layer_has_its_own_criterion():
    matches = matches_of("ChannelDistillation")
    assert [match.weight for match in matches] == [6, 6, 6]
    assert len({match.criterion for match in matches}) == 3
    assert matches_of("DKD", weight="WarmUp:weight=1")[0].schedule == WarmUp(1.0)
    assert matches_of("DKD")[0].measuring  # the published weights of these were too large here (docs/log.md)
    assert matches_of("RKD")[0].measuring
    assert matches_of("CWD")[0].measuring


def test_layers_weight_and_projector_can_be_named():
    (match,) = matches_of("CWD", student_layers=("1",), teacher_layers=("0",), weight="0.25", projector="conv1x1")
    assert layers_of([match]) == [(("1",), ("0",))]
    assert match.weight == 0.25
    assert match.make_projector is conv1x1
    assert matches_of("CWD")[0].make_projector is conv_bn_relu_if_positive
    assert matches_of("CWD", projector="off")[0].make_projector is None
    assert matches_of("OFD")[0].make_projector is conv_bn


def test_other_layers_can_be_read_than_the_methods_own():
    assert len(matches_of("ChannelTransform", layers="stages")) == 3
    (match,) = matches_of("CWD", layers="output")
    assert layers_of([match]) == [(("output",), ("output",))]
    assert match.make_projector is None


def test_options_follow_the_name():
    criterion = matches_of("DKD:others=2,temperature=1.5,standardise=True")[0].criterion
    assert (criterion.others, criterion.temperature, criterion.standardise) == (2, 1.5, True)
    assert matches_of("MGD:over=positions,masked=0.5")[0].criterion.over == "positions"
    assert matches_of("MGD:over='positions'")[0].criterion.over == "positions"


@pytest.mark.parametrize(
    ("spec", "weight"),
    [
        ("auto", "auto"),
        ("2.5", 2.5),
        (3.0, 3.0),
        ("EarlyDecay:weight=6,factor=0.5,at=(0.2, 0.4)", EarlyDecay(6, factor=0.5, at=(0.2, 0.4))),
        ("WarmUp:weight=2,until=0.5", WarmUp(2, until=0.5)),
    ],
)
def test_a_weight_is_auto_a_number_or_a_schedule(spec, weight):
    assert weight_of(spec) == weight


def test_a_criterion_of_ones_own_is_named_by_its_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n\n"
        "def distance(student, teacher):\n    return (student - teacher).abs().mean()\n\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self, by=1.0):\n        super().__init__()\n        self.by = by\n\n"
        "    def forward(self, student, teacher):\n        return self.by * distance(student, teacher)\n"
    )
    (match,) = matches_of(f"{file}:distance")
    assert layers_of([match]) == [(("2",), ("2",))]
    assert match.criterion(torch.ones(2), torch.zeros(2)) == 1
    _, make = find_method(f"{file}:Scaled:by=3")
    assert make()(torch.ones(2), torch.zeros(2)) == 3


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("CDW", {}, "no method 'CDW', did you mean CWD"),
        ("kd", {}, "no method 'kd', did you mean KD"),
        ("nothing at all", {}, "no method 'nothing at all'; there are ChannelTransform, KD"),
        ("KD:temprature=2", {}, "KD has no option 'temprature'; it has temperature, standardise"),
        ("KD:2", {}, "KD:2: options are written KD:option=value"),
        ("KD:temperature=", {}, "options are written KD:option=value"),
        ("KD:temperature=nan", {}, "KD:temperature=nan: temperature is a number"),
        ("KD:temperature=1e999", {}, "KD:temperature=inf: temperature must be finite, above 0"),
        ("KD:temperature=0", {}, "KD:temperature=0: temperature must be finite, above 0"),
        ("CWD:temperature=-1", {}, "temperature must be finite, above 0"),
        ("KD:temperature=(1, 2)", {}, r"temperature=\(1, 2\): temperature is a number"),
        ("DKD:others=-1", {}, "others must be finite, 0 or more"),
        ("ChannelTransform:hidden=0", {}, "hidden must be finite, above 0"),
        ("ChannelTransform:hidden=-4", {}, "hidden must be finite, above 0"),
        ("KD", {"weight": "WarmUp:weight=0"}, "WarmUp:weight=0: weight must be finite, above 0"),
        ("KD", {"weight": "EarlyDecay:weight=nan"}, "EarlyDecay:weight=nan: weight is a number"),
        ("KD", {"weight": "EarlyDecay:weight=1,at=0.5"}, r"at=0\.5: at is numbers, as \(0\.3, 0\.8\)"),
        ("KD", {"weight": "LateStart:weight=1,at=3"}, "at must be finite, 0 or more, and at most 1"),
        ("KD", {"weight": "heavy"}, "no weight .* 'heavy'"),
        ("KD", {"weight": "0"}, "the weight of KD is 0; it has to be above 0"),
        ("KD", {"weight": -1.0}, "the weight of KD is -1; it has to be above 0"),
        ("KD", {"weight": "EarlyDecay"}, "EarlyDecay needs a weight: EarlyDecay:weight=1"),
        ("KD", {"weight": "EarlyDecay:speed=2"}, "EarlyDecay has no option 'speed'; it has weight, factor, at"),
        (
            "CWD",
            {"student_layers": ("0", "1")},
            r"2 layers of the student \(0, 1\) are to follow 1 of the teacher \(2\)",
        ),
        (f"{NETS}:nothing", {}, "nothing"),
        (f"{NETS}:small:by=2", {}, "small is a function, which takes no options"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(method, options, message):
    with pytest.raises(ValueError, match=message):
        matches_of(method, **options)


def test_what_a_run_used_is_named_for_citing():
    assert used_in(matches_of("KD:standardise=True", weight=EarlyDecay(1.0))) == ["EarlyDecay", "KD", "standardise"]
    assert used_in(matches_of("FitNet", projector="orthogonal")) == ["MSELoss", "orthogonal"]
    assert used_in(matches_of("OFD")) == ["OFD"]
    assert used_in([]) == []


def test_what_has_no_name_is_not_to_be_cited():
    def halved(progress):
        return 0.5

    nameless = Match("a", "a", lambda s, t: (s - t).sum(), weight=lambda progress: 1.0, projector=lambda s, t: None)
    assert used_in([nameless, Match("b", "b", torch.dist, weight=halved)]) == ["dist", "halved"]


def test_distributions_over_bins_are_compared_where_they_are_named():
    with pytest.raises(ValueError, match=r"LD compares where the sides .* name your layers with --student-"):
        matches_of("LD")
    student, teacher, images = net(4), net(4), torch.randn(2, 3, 32, 32)
    named = {"student_layers": ("2",), "teacher_layers": ("2",)}
    (match,) = matches_of("LD:temperature=5", student, teacher, weight=1.0, **named)
    assert match.make_projector is None
    assert Distiller(student, teacher, [match], example=(images,))(images).loss > 0


@pytest.mark.parametrize("definition", ["one(student)", "three(student, teacher, other)"])
def test_a_function_that_takes_no_two_features_is_no_criterion(tmp_path, definition):
    (tmp_path / "own.py").write_text(f"def {definition}:\n    return student.mean()\n")
    name = definition.partition("(")[0]
    with pytest.raises(ValueError, match=rf"own.py:{name}\(student.*is no criterion, which takes \(student, teacher\)"):
        matches_of(f"{tmp_path / 'own.py'}:{name}")


def test_a_layer_that_does_not_exist_is_told_with_the_model_that_lacks_it():
    with pytest.raises(
        ValueError, match=r"--teacher-layer: Sequential has no layer 'xyz'; its first: 0, 0.conv, 0.act"
    ):
        matches_of("Cosine", student_layers=["2"], teacher_layers=["xyz"])
