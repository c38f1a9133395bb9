"""Where a feature has its channels: criteria and projectors take maps (B, C, H, W) and tokens (B, N, D)."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.modules import Example, find

IN_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)  # modules that give channels as the last dimension
IN_SECOND = {  # and those that give them as the second, by number of dimensions
    3: (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.GroupNorm),
    4: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm),
}


def check_layout(model: nn.Module, layer: Layer, feature: Tensor) -> None:
    """Refuse a feature whose channels are elsewhere, as far as the modules of its layer tell.

    A layer with a ``read`` is taken as its user says.

    Raises:
        ValueError: It is a map kept as (B, H, W, C), as in Swin transformers, or a sequence kept as (B, C, L).
    """
    if layer.read is not None or feature.ndim not in IN_SECOND:
        return
    in_second, in_last = _widths(model, layer, feature.ndim)
    second, last = feature.shape[1], feature.shape[-1]
    if feature.ndim == 3:
        misplaced = second in in_second and last not in in_last
        kept, read, wanted = "(B, C, L)", "lambda output: output.mT", "(B, N, D)"
    else:
        square = second == feature.shape[2] != last
        known = in_second | in_last
        misplaced = second not in known and (last in in_last or (square and (last in in_second or not known)))
        kept, read, wanted = "(B, H, W, C)", "channels_first", "(B, C, H, W)"
    if misplaced:
        own = f"{layer.path!r}, input=True" if layer.input else repr(layer.path)
        raise ValueError(
            f"layer {layer} of {type(model).__name__} gives {tuple(feature.shape)}, which looks as if it were kept as "
            f"{kept}; pass Layer({own}, read={read}), or if it is {wanted}, Layer({own}, read=lambda output: output)"
        )


def check_batch_first(model: nn.Module, layer: Layer, feature: Tensor, example: Example) -> None:
    """Refuse a feature (N, B, D) of B images, as torch's transformers give it where nobody has said ``batch_first``."""
    images = example[0] if isinstance(example, tuple) and example else example
    if not isinstance(images, Tensor) or images.ndim < 2 or feature.ndim != 3:
        return
    first, second = feature.shape[:2]
    if first != len(images) == second > 1:
        raise ValueError(
            f"layer {layer} of {type(model).__name__} gives {tuple(feature.shape)} for {len(images)} images, so with "
            f"the batch second; pass Layer({layer.path!r}, read=lambda output: output.transpose(0, 1))"
        )


def _widths(model: nn.Module, layer: Layer, dimensions: int) -> tuple[set[int], set[int]]:
    """Numbers of channels that the modules of a layer give as second and as last dimension.

    Where it has no weights, as an activation, those of the last module before it that has.
    """
    place = find(model, layer.path)
    if not layer.input:
        inside = [_widths_of(module, dimensions) for module in place.modules()]
        second, last = (set().union(*each) for each in zip(*inside, strict=True))
        if second | last:
            return second, last
    before: tuple[set[int], set[int]] = set(), set()
    for module in model.modules():
        if module is place:
            break
        widths = _widths_of(module, dimensions)
        before = widths if any(widths) else before
    return before


def _widths_of(module: nn.Module, dimensions: int) -> tuple[set[int], set[int]]:
    names = ("out_channels", "num_features", "num_channels", "out_features", "normalized_shape")
    if not isinstance(module, (*IN_SECOND[dimensions], *IN_LAST)):
        return set(), set()
    width = next(getattr(module, name) for name in names if hasattr(module, name))
    width = {width[-1] if isinstance(width, tuple) else width}
    return (set(), width) if isinstance(module, IN_LAST) else (width, set())
