"""Channel-wise transformation: a nonlinear map of the student's channels, then L2. https://arxiv.org/abs/2303.13212"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.precision import as_convolutions
from limbeck.core.precision import exact as in_float32
from limbeck.criteria.shared.one_pass import CHUNK, OnePass, transformed


class ChannelTransform(nn.Module):
    """Squared L2 distance between the teacher's feature and a learned transform of the student's.

    ``sum((output(relu(hidden(student))) - teacher)**2) / B``: a two-layer perceptron over the channels, the same at
    every position (two 1x1 convolutions), on the student's feature only. It is trained with the student and dropped
    afterwards: in a ``Match`` by the gradient of the relative squared error, whatever the weight and the number of
    positions, while the student gets the gradient of the weighted sum. Follows arXiv 2303.13212; the paper does not say
    the hidden width, whether there are biases, or whether the sum is divided by the batch size: those are this
    library's choices.

    Loss and gradients are computed in one pass over chunks of positions, so that the only large tensor kept for the
    backward pass is the gradient of the student's feature. Sums are in float32 under any mixed precision; on a GPU the
    products of float32 features are in TensorFloat-32 where torch's convolutions are, as they are by default.

    Args:
        hidden: Width of the hidden layer; ``None`` takes the teacher's channels.

    Shapes:
        student (B, C_s, H, W), teacher (B, C_t, H, W), or tokens (B, N, C_s), (B, N, C_t); gives a scalar.

    Raises:
        ValueError: The features differ in more than their channels.

    >>> student, teacher = torch.zeros(2, 4, 7, 7), torch.ones(2, 8, 7, 7)
    >>> criterion = ChannelTransform()
    >>> criterion.build(student, teacher)
    >>> criterion(student, teacher).shape
    torch.Size([])
    """

    hidden: nn.Linear
    output: nn.Linear
    mixed_precision = True  # takes features of any precision, and accumulates in float32 by itself

    def __init__(self, hidden: int | None = None):
        super().__init__()
        self.width = hidden

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the two layers for features like these."""
        channel = 1 if student.ndim == 4 else -1
        width = self.width or teacher.shape[channel]
        self.hidden = nn.Linear(student.shape[channel], width)
        self.output = nn.Linear(width, teacher.shape[channel])

    def project(self, student: Tensor) -> Tensor:
        """The student's feature, transformed."""
        channels_last = student.movedim(1, -1) if student.ndim == 4 else student
        made: Tensor = self.output(self.hidden(in_float32(channels_last)).relu())
        return made.movedim(-1, 1) if student.ndim == 4 else made

    def forward(self, student: Tensor, teacher: Tensor, cells: Tensor | None = None) -> Tensor:
        """The loss, each position weighed by ``cells`` (B, positions) if given."""
        rows, target = as_rows(student), as_rows(teacher)
        if rows.shape[:2] != target.shape[:2]:
            raise ValueError(
                f"ChannelTransform: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} may differ in "
                "their channels only; a Match brings maps to one grid, tokens need Layer(..., read=tokens_to_map(...))"
            )
        given = (rows, target, cells, self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias)
        if transformed():
            return plain(*given)
        eager = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        loss: Tensor = OnePass.apply(_run, plain, *given) if eager else one_pass(*given)[0]
        return loss


def as_rows(feature: Tensor) -> Tensor:
    """A map (B, C, H, W) or tokens (B, N, C) as rows of channels (B, positions, C), without a copy."""
    if feature.ndim == 4:
        return feature.flatten(2).transpose(1, 2)
    if feature.ndim == 3:
        return feature
    raise ValueError(f"ChannelTransform takes maps (B, C, H, W) or tokens (B, N, D), not {tuple(feature.shape)}")


def plain(rows: Tensor, target: Tensor, cells: Tensor | None, *weights: Tensor) -> Tensor:
    """The loss as its formula stands, which autograd differentiates as often as it is asked to."""
    w1, b1, w2, b2 = map(in_float32, weights)
    made = F.linear(F.linear(in_float32(rows), w1, b1).relu(), w2, b2)
    squares = (made - in_float32(target).detach()).square()
    return (squares if cells is None else squares * cells.unsqueeze(-1)).sum() / len(rows)


def _run(*given: Any) -> tuple[Any, ...]:
    loss, d_rows, *d_weights = one_pass(*given)
    return loss, d_rows, None, None, *d_weights


@torch.library.custom_op("limbeck::channel_transform", mutates_args=())
def one_pass(
    rows: Tensor, target: Tensor, cells: Tensor | None, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradients by rows (B, P, C_s), w1 (h, C_s), b1 (h), w2 (C_t, h), b2 (C_t).

    Where there are ``cells`` (B, P), they weigh the square at each position.
    """
    low = rows.dtype in (torch.bfloat16, torch.float16)  # then products are in low precision, sums in float32
    exact = torch.promote_types(rows.dtype, torch.promote_types(w1.dtype, torch.float32))
    dtype = rows.dtype if low else exact
    loss = torch.zeros((), dtype=exact, device=rows.device)
    d_rows = torch.empty_like(rows)
    d_w1, d_b1, d_w2, d_b2 = gradients = [torch.zeros_like(weight, dtype=exact) for weight in (w1, b1, w2, b2)]
    first, first_bias, second = w1.to(dtype), b1.to(dtype), w2.to(dtype)
    scale = 2 / len(rows)  # of the gradient of a sum of squares divided by the batch
    scaled_second = second * scale
    with torch.autocast(rows.device.type, enabled=False), as_convolutions(rows.device):
        for chunk in chunks(rows, largest=max(*w1.shape, *w2.shape)):
            x = rows[chunk].reshape(-1, rows.shape[2]).to(dtype)  # (n, C_s)
            t = target[chunk].reshape(-1, target.shape[2])  # (n, C_t)
            hidden = torch.addmm(first_bias, x, first.t(), out=empty_rows(x, len(b1), dtype)).relu_()
            difference = torch.sub(b2, t, out=empty_rows(x, len(b2), exact))
            add_product(difference, hidden, second.t())
            if cells is not None:
                root = cells[chunk].reshape(-1, 1).to(exact).sqrt()
                difference.mul_(root)
            flat = (difference if difference.is_contiguous() else difference.t()).view(-1)
            loss += torch.dot(flat, flat)
            if cells is not None:
                difference.mul_(root)
            d_b2 += difference.sum(0)
            error = difference.to(dtype)
            add_product(d_w2, error.t(), hidden)
            d_hidden = torch.mm(error, scaled_second, out=empty_rows(x, len(b1), dtype))
            torch.ops.aten.threshold_backward.grad_input(d_hidden, hidden, 0, grad_input=d_hidden)
            d_b1 += d_hidden.sum(0, dtype=exact)
            add_product(d_w1, d_hidden.t(), x)
            d_x = d_rows[chunk]
            d_x.copy_(torch.mm(d_hidden, first, out=empty_rows(x, x.shape[1], dtype)).view_as(d_x))
    d_w2 *= scale
    d_b2 *= scale
    d_weights = (d.to(weight.dtype, copy=False) for d, weight in zip(gradients, (w1, b1, w2, b2), strict=True))
    return loss / len(rows), d_rows, *d_weights  # type: ignore[return-value]


@one_pass.register_fake
def _(rows: Tensor, target: Tensor, cells: Tensor | None, *weights: Tensor) -> tuple[Tensor, ...]:
    exact = torch.promote_types(rows.dtype, torch.promote_types(weights[0].dtype, torch.float32))
    return rows.new_empty((), dtype=exact), torch.empty_like(rows), *map(torch.empty_like, weights)


def _keep_gradients(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])


def _scale_gradients(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    rows, *weights = (gradient * upstream.to(gradient.dtype) for gradient in ctx.saved_tensors)
    return rows, None, None, *weights


one_pass.register_autograd(_scale_gradients, setup_context=_keep_gradients)  # for torch.compile; see OnePass


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, in place where the precision allows."""
    if left.dtype == torch.bfloat16:
        total += left @ right
    else:  # a float16 product, of as many terms as there are positions, could overflow
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


def empty_rows(x: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Room for (n, width), with positions side by side where ``x`` (n, C) has them so, as slices of (C, H, W) do."""
    if x.stride(0) == 1:
        return torch.empty(width, len(x), dtype=dtype, device=x.device).t()
    return torch.empty(len(x), width, dtype=dtype, device=x.device)


def chunks(rows: Tensor, largest: int) -> Iterator[tuple[slice, slice]]:
    """Cut (B, P, C) into pieces of about ``CHUNK`` elements: parts of one sample, or several samples."""
    batch, positions, _ = rows.shape
    length = max(1, CHUNK.get(rows.device.type, CHUNK["cuda"]) // largest)
    if positions > length:
        for sample in range(batch):
            for start in range(0, positions, length):
                yield slice(sample, sample + 1), slice(start, start + length)
    else:
        step = length // positions
        for start in range(0, batch, step):
            yield slice(start, start + step), slice(0, positions)
