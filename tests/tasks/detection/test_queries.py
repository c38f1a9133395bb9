"""DETRDistill: queries of one transformer follow those of another."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from limbeck import Distiller
from limbeck.cli import main
from limbeck.core.capture import Capture
from limbeck.criteria import DETRDistill
from limbeck.methods.pairing import make_matches
from limbeck.models.teachers import check_teacher_classes
from limbeck.tasks.detection.models import build_detector
from limbeck.tasks.detection.queries import find_queries
from tests.runs import assert_resumes_bitwise, cells, log_of
from tests.tasks.detection.test_commands import SHORT, write_objects
from tests.tasks.detection.test_transformers import CLASSES, KINDS, built, configuration, target

IMAGES = [torch.rand(3, 128, 96, generator=torch.Generator().manual_seed(place)) for place in range(2)]
TARGETS = [target([1.0, 2.0, 60.0, 90.0], labels=[place + 1]) for place in range(2)]
SOFTMAX = ("detr", "table_transformer")


def model_of(kind, folder, **changes):
    torch.manual_seed(len(changes))
    configuration(kind, **changes).save_pretrained(folder)
    return build_detector(f"hf:{folder}", CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_read_where_the_loss_takes_them(kind, tmp_path):
    detector = built(kind, tmp_path)
    queries = find_queries(detector)
    assert queries.softmax == (kind in SOFTMAX)
    seen = []
    hook = detector.model.register_forward_hook(lambda *returned: seen.append(returned[-1]))
    with torch.no_grad():
        _, features = Capture(detector.eval(), queries.layers)(IMAGES)
    for layer, wanted in zip(queries.layers, (seen[-1].logits, seen[-1].pred_boxes), strict=True):
        assert torch.equal(features[layer], wanted)
    losses, features = Capture(detector.train(), queries.layers)(IMAGES, TARGETS)
    hook.remove()
    assert [features[layer].shape[:2] for layer in queries.layers] == [(2, 12)] * 2, "none that start from noise"
    noise = getattr(seen[-1], "denoising_meta_values", None)
    if noise:
        assert noise["dn_num_split"][0] > 0
        assert torch.equal(features[queries.layers[0]], seen[-1].logits.split(noise["dn_num_split"], dim=1)[1])
    read = [features[layer] for layer in queries.layers]
    sources = [each if each._base is None else each._base for each in read]
    gradients = torch.autograd.grad(losses["loss"], sources, allow_unused=True)
    assert all(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("student", "teacher"), [("detr", "detr"), ("conditional_detr", "rt_detr_v2")])
def test_a_transformer_learns_from_the_queries_of_one_with_more_of_them(student, teacher, tmp_path):
    pair = model_of(student, tmp_path / "a"), model_of(teacher, tmp_path / "b", num_queries=20)
    (match,) = make_matches("DETRDistill:boxes=2", *pair)
    assert str(match) == "DETRDistill"
    assert (match.criterion.boxes, match.criterion.softmax) == (2, student in SOFTMAX)
    example = (IMAGES, TARGETS)
    distiller = Distiller(pair[0].module, pair[1].module, [match], example=example, teacher_inputs=(IMAGES,)).train()
    optimizer = torch.optim.AdamW([each for each in distiller.parameters() if each.requires_grad], 1e-3)
    values = []
    for _ in range(12):
        out = distiller(*example, teacher_inputs=(IMAGES,))
        (out.output["loss"] + out.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(out.losses["DETRDistill"].item() / (match.weight or 1))
    assert match.weight > 0, "auto has found the task's gradient at what is read"
    assert values[-1] < values[1]


def test_pairs_are_those_of_the_least_cost_and_a_permuted_teacher_changes_nothing():
    torch.manual_seed(0)
    student, teacher = ((torch.randn(2, 9, 3), torch.rand(2, 9, 4) * 0.4 + 0.1) for _ in range(2))
    order = torch.randperm(9)
    for softmax in (False, True):
        criterion = DETRDistill(linear_sum_assignment, softmax=softmax)
        value = criterion(student, teacher)
        assert criterion(student, tuple(each[:, order] for each in teacher)).item() == pytest.approx(value.item())
        in_order = DETRDistill(lambda cost: (torch.arange(9), torch.arange(9)), softmax=softmax)
        assert value < in_order(student, teacher)
        own = criterion(teacher, tuple(each[:, order] for each in teacher))
        assert own.item() == pytest.approx(in_order(teacher, teacher).item(), rel=1e-5), "each finds itself"


def test_what_cannot_be_compared_is_refused(tmp_path):
    softmax, sigmoids = model_of("detr", tmp_path / "a"), model_of("rt_detr_v2", tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"the student's queries say one class or none \(a softmax\), the teacher's each"
    ):
        make_matches("DETRDistill", softmax, sigmoids)
    with pytest.raises(ValueError, match="leave out --strides"):
        make_matches("DETRDistill", softmax, softmax, strides=(32,))
    dense = build_detector("torchvision:fcos/timm:test_efficientnet", CLASSES)
    with pytest.raises(
        ValueError, match=r"predicted by the queries of a transformer .*, which the teacher, a FCOS, does"
    ):
        make_matches("DETRDistill", softmax, dense)
    with pytest.raises(ValueError, match=r"predicted by the head of a RetinaNet or FCOS .* a TransformerDetector"):
        make_matches("CrossKD", dense, softmax)
    with pytest.raises(ValueError, match="DETRDistill has no option 'softmax'"):
        make_matches("DETRDistill:softmax=True", softmax, softmax)
    criterion = DETRDistill(linear_sum_assignment)
    logits, boxes = torch.zeros(1, 3, 2), torch.zeros(1, 3, 4)
    for wrong in ((logits, logits), logits, (torch.zeros(1, 3, 5), boxes)):
        with pytest.raises(ValueError, match=r"DETRDistill compares logits \(B, Q, K\) of the same classes"):
            criterion((logits, boxes), wrong)


def test_the_command_distils_queries_and_goes_on_bitwise_after_a_stop(tmp_path, capsys):
    data = ["--data", write_objects(tmp_path / "data", train=8, val=2), *SHORT, "--no-teacher-check"]
    for name, queries in (("student", 12), ("teacher", 20)):
        configuration("detr", num_queries=queries).save_pretrained(tmp_path / name)
    models = ["--student", f"hf:{tmp_path}/student", "--teacher", f"hf:{tmp_path}/teacher"]
    start = [
        "distill",
        "detection",
        *data,
        *models,
        "--method",
        "DETRDistill",
        "--epochs",
        "8",
        "--checkpoint-every",
        "2",
    ]
    assert_resumes_bitwise([*start, "--evaluate-every", "8"], tmp_path, kill_after=(4,))
    losses = [entry["DETRDistill"] for entry in log_of(tmp_path / "broken", "train")]
    assert max(losses) > 0
    main(["cite", str(tmp_path / "broken")])
    assert "2211.10156" in capsys.readouterr().out


def test_the_queries_of_a_teacher_of_other_classes_are_refused_but_its_features_are_followed(tmp_path):
    student, teacher = model_of("detr", tmp_path / "a"), model_of("detr", tmp_path / "b")
    teacher.classes = [f"no {name}" for name in CLASSES]
    with pytest.raises(ValueError, match=r"DETRDistill compares class scores, but .* the teacher knows other classes"):
        check_teacher_classes(teacher, CLASSES, make_matches("DETRDistill", student, teacher))
    (note,) = check_teacher_classes(teacher, CLASSES, make_matches("ChannelTransform", student, teacher))
    assert note.startswith("the teacher knows other classes (no ")
    assert note.endswith("so it is not measured; its features are followed")


def test_layers_give_queries_no_stride_whatever_their_number(tmp_path, capsys):
    configuration("detr", num_queries=16).save_pretrained(tmp_path)
    main(["layers", f"hf:{tmp_path}", "--size", "64", "--depth", "6"])
    strides = {row[0]: row[3] for row in cells(capsys.readouterr().out)}
    of_decoder = {path: stride for path, stride in strides.items() if ".decoder" in path}
    assert of_decoder
    assert set(of_decoder.values()) == {""}
    assert strides[next(path for path in strides if path.endswith("encoder.stages.3"))] == "32"
