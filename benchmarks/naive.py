"""The criteria as they are written down: plain autograd on the whole batch, through the same trained modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import criteria
from limbeck.criteria.fkd import NonLocal


def attention_transfer(criterion: criteria.AttentionTransfer, student: Tensor, teacher: Tensor) -> Tensor:
    here, there = (F.normalize(feature.pow(criterion.power).mean(1).flatten(1)) for feature in (student, teacher))
    return (here - there).pow(2).mean()


def channel_distillation(criterion: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    here, there = (F.adaptive_avg_pool2d(feature, 1) for feature in (student, teacher))
    return (here - there).pow(2).mean()


def channel_transform(criterion: criteria.ChannelTransform, student: Tensor, teacher: Tensor) -> Tensor:
    hidden = F.relu(F.conv2d(student, criterion.hidden.weight[:, :, None, None], criterion.hidden.bias))
    transformed = F.conv2d(hidden, criterion.output.weight[:, :, None, None], criterion.output.bias)
    return F.mse_loss(transformed, teacher, reduction="sum") / len(student)


def foreground_transform(
    criterion: criteria.ForegroundTransform, student: Tensor, teacher: Tensor, truth: list[Tensor]
) -> Tensor:
    transform, (batch, _, height, width) = criterion.transform, student.shape
    hidden = F.relu(F.conv2d(student, transform.hidden.weight[:, :, None, None], transform.hidden.bias))
    transformed = F.conv2d(hidden, transform.output.weight[:, :, None, None], transform.output.bias)
    weights = torch.full_like(teacher[:, :1], criterion.background)
    for image, boxes in enumerate(truth):
        low, high = (boxes * boxes.new_tensor([width, height] * 2)).split(2, dim=1)
        for (left, top), (right, bottom) in zip(low.floor().int().tolist(), high.ceil().int().tolist(), strict=True):
            weights[image, 0, top : bottom + 1, left : right + 1] = 1
    return (weights * (transformed - teacher) ** 2).sum() / batch


def cirkd(criterion: criteria.CIRKD, student: Tensor, teacher: Tensor) -> Tensor:
    """As the authors' code has it: one pair of images after the other."""
    here, there = (F.normalize(feature.flatten(2).transpose(1, 2), dim=2) for feature in (student, teacher))
    total = torch.zeros((), device=student.device)
    for i in range(len(here)):
        for j in range(len(here)):
            log_student = F.log_softmax(here[i] @ here[j].t() / criterion.temperature, dim=1)
            p_teacher = F.softmax(there[i] @ there[j].t() / criterion.temperature, dim=1)
            total = total + F.kl_div(log_student, p_teacher, reduction="batchmean")
    return total / len(here) ** 2


def cosine(criterion: criteria.Cosine, student: Tensor, teacher: Tensor) -> Tensor:
    directions = (1 - F.cosine_similarity(student, teacher, dim=1)).mean()
    return criterion.cosine * directions + criterion.smooth_l1 * F.smooth_l1_loss(student, teacher)


def cwd(criterion: criteria.CWD, student: Tensor, teacher: Tensor) -> Tensor:
    batch, channels = student.shape[:2]
    here, there = (feature.reshape(batch * channels, -1) / criterion.temperature for feature in (student, teacher))
    p_teacher = F.softmax(there, dim=1)
    difference = p_teacher * F.log_softmax(there, dim=1) - p_teacher * F.log_softmax(here, dim=1)
    return criterion.temperature**2 * difference.sum() / (batch * channels)


def fgd(criterion: criteria.FGD, student: Tensor, teacher: Tensor, truth: list[Tensor]) -> Tensor:
    """As the authors' code has it: each feature times the roots of its weights, then squared distances."""
    batch, _, height, width = student.shape
    foreground, background = torch.zeros_like(teacher[:, :1]), torch.ones_like(teacher[:, :1])
    for image, boxes in enumerate(truth):
        low, high = (boxes * boxes.new_tensor([width, height] * 2)).split(2, dim=1)
        for (left, top), (right, bottom) in zip(low.floor().int().tolist(), high.ceil().int().tolist(), strict=True):
            cells = image, 0, slice(top, bottom + 1), slice(left, right + 1)
            area = (bottom + 1 - top) * (right + 1 - left)
            foreground[cells] = foreground[cells].clamp(min=1 / area)
            background[cells] = 0
        background[image] /= background[image].sum().clamp(min=1)

    def attention(feature: Tensor) -> tuple[Tensor, Tensor]:
        absolute = feature.abs()
        positions = (absolute.mean(1).flatten(1) / criterion.temperature).softmax(1) * height * width
        channels = (absolute.mean((2, 3)) / criterion.temperature).softmax(1) * feature.shape[1]
        return positions.view(batch, 1, height, width), channels[:, :, None, None]

    here, there = attention(student), attention(teacher)

    def distance(mask: Tensor) -> Tensor:
        roots = [weight.sqrt() for weight in (*there, mask)]
        weighed = (feature * roots[0] * roots[1] * roots[2] for feature in (student, teacher))
        return F.mse_loss(*weighed, reduction="sum")

    attentions = sum(F.l1_loss(a, b, reduction="sum") for a, b in zip(here, there, strict=True))
    contexts = criterion.student_context(student), criterion.teacher_context(teacher)
    return (
        criterion.foreground * distance(foreground)
        + criterion.background * distance(background)
        + criterion.attention * attentions
        + criterion.relation * F.mse_loss(*contexts, reduction="sum")
    ) / batch


def fkd(criterion: criteria.FKD, student: Tensor, teacher: Tensor) -> Tensor:
    batch, _, height, width = student.shape
    masks = [
        (feature.abs().mean(1).flatten(1) / criterion.temperature).softmax(1) * height * width
        for feature in (student.detach(), teacher)
    ]
    mask = ((masks[0] + masks[1]) / 2).sqrt().view(batch, 1, height, width)
    feature = torch.dist(teacher * mask, criterion.map_feature(student) * mask)
    channels = torch.dist(teacher.mean((2, 3)), criterion.map_channels(student.mean((2, 3))))
    positions = torch.dist(teacher.mean(1, keepdim=True), criterion.map_positions(student.mean(1, keepdim=True)))
    relations = torch.dist(
        non_local(criterion.teacher_relations, teacher),
        criterion.map_relations(non_local(criterion.student_relations, student)),
    )
    return criterion.feature * feature + criterion.attention * (channels + positions) + criterion.relation * relations


def non_local(block: NonLocal, feature: Tensor) -> Tensor:
    """With the table of all pairs of positions (B, H * W, pooled), which the order of the products can avoid."""
    pool = nn.MaxPool2d([min(block.stride, side) for side in feature.shape[2:]])
    query, key, value = (layer(feature) for layer in (block.query, block.key, block.value))
    query, key, value = query.flatten(2), pool(key).flatten(2), pool(value).flatten(2)
    pairs = query.transpose(1, 2) @ key / key.shape[2]
    related = (pairs @ value.transpose(1, 2)).transpose(1, 2)
    return feature + block.norm(block.output(related.reshape(*related.shape[:2], *feature.shape[2:])))


def mgd(criterion: criteria.MGD, student: Tensor, teacher: Tensor) -> Tensor:
    mask = (torch.rand_like(student[:, :1].contiguous()) >= criterion.masked).to(student.dtype)
    return F.mse_loss(criterion.generator(student * mask), teacher, reduction="sum") / len(student)


def ofd(criterion: criteria.OFD, student: Tensor, teacher: Tensor) -> Tensor:
    target = torch.max(teacher, criterion.margin)
    distance = F.mse_loss(student, target, reduction="none")
    return (distance * ((student > target) | (target > 0)).float()).sum() / len(student)


def pkd(criterion: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    def standardised(feature: Tensor) -> Tensor:
        batch, channels, height, width = feature.shape
        values = feature.permute(1, 0, 2, 3).reshape(channels, -1)
        values = (values - values.mean(1, keepdim=True)) / (values.std(1, keepdim=True) + 1e-6)
        return values.reshape(channels, batch, height, width).permute(1, 0, 2, 3)

    return F.mse_loss(standardised(student), standardised(teacher)) / 2


def review_kd(criterion: criteria.ReviewKD, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    fused, deeper = [], None
    for fusion, here, there in reversed(list(zip(criterion.fusions, student, teacher, strict=True))):
        like, deeper = fusion(here, deeper, there.shape[2:])
        fused.insert(0, like)
    total = torch.zeros((), device=teacher[0].device)
    for here, there in zip(fused, teacher, strict=True):
        distance, weight, weights = F.mse_loss(here, there), 1.0, 1.0
        for size in [size for size in (4, 2, 1) if size < there.shape[2]]:
            weight /= 2
            weights += weight
            pooled = F.adaptive_avg_pool2d(here, size), F.adaptive_avg_pool2d(there, size)
            distance = distance + weight * F.mse_loss(*pooled)
        total = total + distance / weights
    return total


def rkd(criterion: criteria.RKD, student: Tensor, teacher: Tensor) -> Tensor:
    def distances(vectors: Tensor) -> Tensor:
        squares = vectors.pow(2).sum(1)
        found = (squares[:, None] + squares[None] - 2 * vectors @ vectors.t()).clamp(min=1e-12).sqrt().clone()
        found[range(len(vectors)), range(len(vectors))] = 0
        return found / found[found > 0].mean()

    def angles(vectors: Tensor) -> Tensor:
        directions = F.normalize(vectors[None] - vectors[:, None], p=2, dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).view(-1)

    here, there = student.mean((2, 3)), teacher.mean((2, 3))
    apart = F.smooth_l1_loss(distances(here), distances(there))
    return criterion.distance * apart + criterion.angle * F.smooth_l1_loss(angles(here), angles(there))


def similarity_preserving(criterion: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    here, there = (feature.reshape(len(feature), -1) for feature in (student, teacher))
    return (F.normalize(here @ here.t()) - F.normalize(there @ there.t())).pow(2).mean()


def kd(criterion: criteria.KD | criteria.GuidedKD, student: Tensor, teacher: Tensor) -> Tensor:
    log_student = F.log_softmax(student / criterion.temperature, dim=1)
    p_teacher = F.softmax(teacher / criterion.temperature, dim=1)
    return F.kl_div(log_student, p_teacher, reduction="none").sum(1).mean() * criterion.temperature**2


def guided_kd(criterion: criteria.GuidedKD, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    right = teacher.argmax(1) == labels
    return kd(criterion, student[right], teacher[right])


def dkd(criterion: criteria.DKD, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    own = torch.zeros_like(student).scatter_(1, labels[:, None], 1).bool()

    def pair(logits: Tensor) -> Tensor:
        p = F.softmax(logits / criterion.temperature, dim=1)
        return torch.cat([(p * own).sum(1, keepdim=True), (p * ~own).sum(1, keepdim=True)], dim=1)

    here, there = (logits / criterion.temperature - 1000.0 * own for logits in (student, teacher))
    target = F.kl_div(torch.log(pair(student)), pair(teacher), reduction="sum")
    others = F.kl_div(F.log_softmax(here, dim=1), F.softmax(there, dim=1), reduction="sum")
    return criterion.temperature**2 / len(student) * (criterion.target * target + criterion.others * others)


def dist(criterion: criteria.DIST, student: Tensor, teacher: Tensor) -> Tensor:
    def inter(a: Tensor, b: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(a - a.mean(1)[:, None], b - b.mean(1)[:, None], eps=1e-8).mean()

    here, there = (F.softmax(logits / criterion.temperature, dim=1) for logits in (student, teacher))
    total = criterion.classes * inter(here, there) + criterion.images * inter(here.t(), there.t())
    return criterion.temperature**2 * total


def nkd(criterion: criteria.NKD, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    own = labels[:, None]
    target = -(F.softmax(teacher, dim=1).gather(1, own) * F.log_softmax(student, dim=1).gather(1, own)).mean()
    rest = torch.ones_like(student).scatter_(1, own, 0).bool()
    here, there = (logits[rest].reshape(len(labels), -1) / criterion.temperature for logits in (student, teacher))
    others = -(F.softmax(there, dim=1) * F.log_softmax(here, dim=1)).sum(1).mean()
    return target + criterion.others * criterion.temperature**2 * others


def ofa_kd(criterion: criteria.OFAKD, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    p_student, p_teacher = (F.softmax(logits / criterion.temperature, dim=1) for logits in (student, teacher))
    own = F.one_hot(labels, student.shape[1])
    return -(((p_teacher + own) ** criterion.exponent - own) * torch.log(p_student)).sum(1).mean()


def deit(criterion: criteria.DeiT, student: Tensor, teacher: Tensor) -> Tensor:
    return F.cross_entropy(student, teacher.argmax(dim=1))


def wttm(criterion: criteria.WTTM, student: Tensor, teacher: Tensor) -> Tensor:
    powers = F.softmax(teacher, dim=1) ** criterion.exponent
    sums = powers.sum(1)
    distances = F.kl_div(F.log_softmax(student, dim=1), powers / sums[:, None], reduction="none").sum(1)
    return (sums * distances).mean()


def vitkd(criterion: criteria.ViTKD, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    (batch, _, height, width), masked = student[2].shape, criterion.masked
    here = [align(feature) for align, feature in zip(criterion.aligned, student, strict=True)]
    shallow = F.mse_loss(torch.cat(here[:2], 1), torch.cat(teacher[:2], 1), reduction="sum")
    order = torch.rand(batch, height * width, device=here[2].device).argsort(1).argsort(1)
    mask = (order >= int(height * width * (1 - masked))).view(batch, 1, height, width).float()
    made = criterion.generator(here[2] * (1 - mask) + criterion.token[:, None, None] * mask)
    deep = F.mse_loss(made * mask, teacher[2] * mask, reduction="sum") / masked
    return (criterion.shallow * shallow + criterion.deep * deep) / batch
