"""Which operations of torch take a tensor, in any forward and not by modules alone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operation(NamedTuple):
    """One call of an operation of torch."""

    name: str  # such as aten::convolution
    args: tuple[Any, ...]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record, while it is open, which operations take which memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on: dict[int, list[tuple[range, Operation]]] = defaultdict(list)  # by the address of a storage

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        operation = Operation(func.name(), args)
        read = set()
        for tensor in tensors_in((args, kwargs)):
            read.add(_storage(tensor))
            self._on[_storage(tensor)].append((_memory(tensor), operation))
        for tensor in tensors_in(output):
            if _storage(tensor) not in read:  # neither a view nor changed in place: what had this memory is gone
                self._on[_storage(tensor)] = []
        return output

    def on(self, tensor: Tensor) -> list[Operation]:
        """What took this tensor, or another view of its memory. It has to be alive since it was recorded."""
        memory = _memory(tensor)
        return [
            operation
            for used, operation in self._on[_storage(tensor)]
            if used.start < memory.stop and memory.start < used.stop
        ]


def tensors_in(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _memory(tensor: Tensor) -> range:
    """Addresses from the first element to the last, as several tensors may share a storage, such as a file's."""
    if not tensor.numel():
        return range(0)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return range(tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size())
