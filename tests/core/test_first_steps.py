"""What is trained beside the student: an optimizer that has not got it, and processes that would not share it."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from limbeck import Distiller, LateStart, Match, conv1x1
from limbeck.core.first_steps import STEPS, UNCOUNTED
from limbeck.criteria import KD, ChannelTransform
from tests.networks import convnet, images

LABELS = torch.arange(2)


def distiller_of(*matches, student=None, path="body"):
    matches = matches or (Match(path, "body", ChannelTransform(), weight="auto"),)
    return Distiller(student or convnet(4), convnet(8, seed=1), matches, example=images())


def train(distiller, *optimizers, steps=STEPS + 2, batches=1):
    for _ in range(steps):
        for _ in range(batches):
            out = distiller(images())
            (F.cross_entropy(out.output, LABELS) + out.loss).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize(
    ("make", "batches"), [(torch.optim.SGD, 1), (torch.optim.AdamW, 1), (torch.optim.SGD, 3)], ids=["SGD", "AdamW", "3"]
)
def test_optimizer_of_the_student_alone_is_warned_of_once(make, batches):
    distiller = distiller_of(
        Match("body", "body", ChannelTransform()), Match("stem", "stem", nn.MSELoss(), projector=conv1x1)
    )
    optimizer = make(distiller.student.parameters(), lr=0.01)
    with pytest.warns(
        UserWarning, match=r"none the weights of ChannelTransform:body, MSELoss:stem: make the optim"
    ) as w:
        train(distiller, optimizer, batches=batches)
    assert len(w) == 1
    train(distiller, optimizer)


def test_fused_optimizer_of_the_student_alone_is_warned_of_though_torch_counts_none_of_its_changes():
    distiller, whole = distiller_of(), distiller_of()
    late = distiller_of(Match("body", "body", ChannelTransform(), weight=LateStart(1.0)))
    late.set_progress(0)  # nothing has a gradient yet
    with pytest.warns(UserWarning, match="none the weights of ChannelTransform:body: make the optimizer") as w:
        train(distiller, torch.optim.SGD(distiller.student.parameters(), lr=0.01, fused=True), steps=UNCOUNTED + 2)
    assert len(w) == 1
    for other in (whole, late):
        train(other, torch.optim.SGD(other.parameters(), lr=0.01, fused=True), steps=UNCOUNTED + 2)


def test_optimizer_that_has_what_is_trained_is_not_warned_of():
    whole = distiller_of()
    train(whole, torch.optim.SGD(whole.parameters(), lr=0.01))
    by_another = distiller_of()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (by_another.student, by_another.matches)]
    train(by_another, *optimizers)
    train(copy.deepcopy(by_another), optimizers[0])  # of another student: nothing of the copy changes


def test_weights_that_are_frozen_or_not_there_are_not_missed():
    frozen = distiller_of()
    frozen.matches.requires_grad_(False)
    train(frozen, torch.optim.SGD(frozen.student.parameters(), lr=0.01))
    looked_at = distiller_of(Match("body", "body", ChannelTransform(), weight=0))
    train(looked_at, torch.optim.SGD(looked_at.student.parameters(), lr=0.01))
    none = distiller_of(Match("", "", KD()))
    train(none, torch.optim.SGD(none.student.parameters(), lr=0.01))


def test_student_that_is_not_trained_yet_says_nothing_of_an_optimizer():
    distiller = distiller_of(Match("body", "body", ChannelTransform()))
    train(distiller, steps=3 * STEPS)


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("how", ["DistributedDataParallel", "sharded", "a part of it"])
def test_student_that_synchronises_by_itself_is_refused_where_something_is_trained_beside_it(group, how):
    student, path, words = convnet(4), "body", "is sharded by itself"
    if how == "DistributedDataParallel":
        student, path, words = DistributedDataParallel(student), "module.body", "is in DistributedDataParallel by"
    elif how == "sharded":
        fully_shard(student, mesh=init_device_mesh("cpu", (1,)))
    else:
        fully_shard(student.body, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=f"{words}.* weights of ChannelTransform:{path} .* pass the bare student"):
        distiller_of(student=student, path=path)
    distiller = distiller_of(Match("", "", KD()), student=student)  # nothing to be synchronised
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's
        distiller(images()).loss.backward()
