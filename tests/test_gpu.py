"""What only a GPU shows: that it gives what a CPU gives, and that no step waits for it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Distiller, Layer, Match, prepare_teacher
from limbeck.criteria import CWD, DKD, FGD, FKD, KD, MGD, NKD, PKD, RKD, ChannelTransform
from tests.criteria.contract import CRITERIA
from tests.networks import convnet, images, randomize_norms

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that CUDA or ROCm knows")

LABELS = torch.arange(4)
BOXES = [torch.tensor([[0.1, 0.1, 0.5, 0.6]])] * 4


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Products in float32, not in TensorFloat-32."""
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_gpu(thing):
    if isinstance(thing, list | tuple):
        return type(thing)(map(on_gpu, thing))
    return thing.cuda() if isinstance(thing, torch.Tensor) else thing


@pytest.mark.parametrize("case", CRITERIA, ids=[case.id for case in CRITERIA])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_criterion_gives_what_it_gives_on_a_cpu(case, dtype):
    student, teacher = (feature.to(dtype) for feature in (case.student(), case.teacher()))
    criterion, truth = case.criterion(student, teacher), case.truth(teacher)
    for module in criterion.modules() if isinstance(criterion, nn.Module) else ():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5  # 0 in some cases, which is none for a GPU
    results = []
    for place in (lambda thing: thing, on_gpu):
        leaf = place(student).requires_grad_()
        moved = criterion.cuda() if place is on_gpu and isinstance(criterion, nn.Module) else criterion
        value = moved(leaf, place(teacher), *place(truth))
        results.append([value.cpu(), torch.autograd.grad(value, leaf)[0].cpu()])
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for cpu, gpu in zip(*results, strict=True):
        assert (cpu - gpu).double().norm() <= tolerance * cpu.double().norm() + tolerance * 1e-3


def step(distiller, x, labels, truth):
    out = distiller(x, truth=truth)
    (F.cross_entropy(out.output, labels) + out.loss).backward()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize(
    ("layer", "criterion", "truth"),
    [
        *[("body", each, None) for each in (ChannelTransform(), CWD(), FKD(), MGD(), PKD(), RKD())],
        ("body", FGD(), BOXES),
        *[("", each, LABELS) for each in (DKD(), NKD())],
        ("", KD(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_no_step_waits_for_the_gpu(layer, criterion, truth):
    teacher = prepare_teacher(convnet(4, seed=1).cuda(), ["body", ""], example=images().cuda())
    truth, labels = on_gpu(truth), LABELS.cuda()
    match = Match(layer, layer, criterion, weight="auto")
    distiller = Distiller(convnet(4).cuda(), teacher, [match], example=images(4).cuda(), truth=truth)
    distiller.cuda()
    x = images(4).cuda()
    for _ in range(20):  # what auto measures first, and cuDNN's choices
        step(distiller, x, labels, truth)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(16):
            step(distiller, x, labels, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compile", [False, True])
def test_prepared_teacher_gives_the_features_of_the_plain_one(dtype, compile):
    model = randomize_norms(convnet(16)).cuda()
    x = images(4).cuda()
    expected = nn.Sequential(*list(model)[:4])(x)
    prepared = prepare_teacher(model, ["body"], example=x, dtype=dtype, compile=compile)
    (feature,) = prepared(x).values()
    assert torch.dist(feature.float(), expected) < (1e-4 if dtype is None else 3e-2) * expected.norm()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_mixed_precision_with_a_scaler_learns(precision):
    student = convnet(8).cuda()
    matches = Match("body", "body", ChannelTransform(), weight="auto"), Match("", "", KD())
    distiller = Distiller(student, convnet(16, seed=1).cuda(), matches, example=images(4).cuda()).cuda()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == torch.float16)
    x, losses = images(4).cuda(), []
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast("cuda", precision):
            out = distiller(x)
            loss = F.cross_entropy(out.output.float(), LABELS.cuda()) + out.loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(next(iter(out.losses.values())).item())
    assert 0 < losses[-1] < 0.5 * max(losses)


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
def test_compiled_step_gives_the_losses_of_the_plain_one():
    def distiller():
        matches = (
            Match("body", "body", ChannelTransform(), weight=0.01),
            Match(Layer(""), Layer(""), KD()),
        )
        return Distiller(convnet(8).cuda(), convnet(16, seed=1).cuda(), matches, example=images(4).cuda()).cuda()

    torch.manual_seed(0)
    plain = distiller()
    torch.manual_seed(0)
    compiled = torch.compile(distiller())
    x = images(4).cuda()
    for name, loss in compiled(x).losses.items():
        torch.testing.assert_close(loss, plain(x).losses[name], rtol=1e-3, atol=1e-5)
