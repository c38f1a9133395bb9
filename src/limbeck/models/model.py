"""A network by name, and what a program must know to use it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.projectors import class_token, pooled
from limbeck.data.inputs import Inputs
from limbeck.models.blocks import blocks_of
from limbeck.models.class_token import gives_by_class_token
from limbeck.models.distilled import class_scores, has_two_heads
from limbeck.models.features import last_spatial, stages, survey, survey_used
from limbeck.models.maps import Found


@dataclass(frozen=True)
class DenseHead:
    """The head of a detector that looks at every position of its pyramid, cut into two.

    Args:
        layers: By stride in pixels: what the towers of the classes and of the boxes give where it is cut.
        rest: The rest, of these two maps of a level: logits (B, n, K) and boxes (B, n, 4), in sizes of the anchor.
    """

    layers: Mapping[int, tuple[Layer, Layer]]
    rest: nn.Module


@dataclass(frozen=True)
class Queries:
    """What the queries of a detector of the DETR family predict.

    Args:
        layers: Where logits (B, Q, K) and boxes (B, Q, 4) are.
        softmax: The scores of a query are a softmax over its classes and no object; otherwise sigmoids.
    """

    layers: tuple[Layer, Layer]
    softmax: bool


@dataclass
class Model:
    """A network, its inputs and classes, and the places where methods read it, found when first asked for.

    Args:
        module: The network.
        inputs: The images it takes.
        classes: Names, in the order of its outputs.
        encoder: Dotted path of the part that it shares with classifiers, which has the stages; empty: all of it.
        read_scores: Takes class scores from what the network returns; ``None`` where it returns them.
        find_last_map: Finds the last map, where that is not the last feature with more than one position.
        find_levels: Finds the maps of a feature pyramid, by stride in pixels.
        find_head: Cuts the head over the levels; ``None`` where it has no such head.
        find_queries: Finds what its queries predict.
        loaded: Names of its parameters that start from trained weights.
        card: What a run wrote about it; empty where it comes from no run.
        without_scores: Why it gives no scores for the classes of the data, where that was found.
    """

    module: nn.Module
    inputs: Inputs
    classes: list[str]
    encoder: str = ""
    read_scores: Callable[[Any], Tensor] | None = None
    find_last_map: Callable[[nn.Module], Layer] | None = None
    find_levels: Callable[[nn.Module], Mapping[int, Layer]] | None = None
    find_head: Callable[[nn.Module, Collection[int]], DenseHead | None] | None = None
    find_queries: Callable[[nn.Module], Queries] | None = None
    loaded: frozenset[str] = frozenset()
    card: Mapping[str, Any] = field(default_factory=dict)
    without_scores: str = ""

    def mark_loaded(self, *, fresh: Collection[str] = (), path: str = "") -> None:
        """Note that its parameters start from trained weights.

        Args:
            fresh: Names of the tensors that do not, such as those of a classifier for other classes.
            path: Of the part that does; all of it by default.
        """
        names = {name for name, _ in self.module.named_parameters() if not path or name.startswith(f"{path}.")}
        self.loaded |= names - set(fresh)

    @property
    def output(self) -> Layer:
        """Where the class scores are."""
        return Layer("", self.read_scores or (class_scores if has_two_heads(self.module) else None))

    @cached_property
    def surveyed(self) -> list[Found]:
        """All features, in the order in which they are made."""
        return survey(self.module, self.inputs.example)

    @cached_property
    def used(self) -> list[Found]:
        """The features of the encoder on which the class scores depend, in the order in which they are made."""
        read = self.read_scores
        found = survey_used(self.module, self.inputs.example, read) if read else self.surveyed
        return [each for each in found if not self.encoder or f"{each.path}.".startswith(f"{self.encoder}.")]

    @cached_property
    def stages(self) -> list[Found]:
        """What the encoder's stages give, from the first to the deepest."""
        return stages(self.module, self.used)

    @cached_property
    def blocks(self) -> list[Found]:
        """What the blocks of a plain transformer give, from the first to the deepest; none of any other network."""
        return [] if len(self.stages) > 1 else blocks_of(self.module, self.used, self.stages[-1])

    @cached_property
    def last_map(self) -> Layer:
        """The last feature with more than one position; of a segmenter, what its classifier takes."""
        return self.find_last_map(self.module) if self.find_last_map else last_spatial(self.module, self.used).layer

    @cached_property
    def class_token(self) -> Layer | None:
        """The class token, of a transformer that gives its output by it alone; ``None`` of any other network."""
        alone = gives_by_class_token(self.module, self.inputs.example, self.last_map, self.output)
        return Layer(self.last_map.path, class_token, label=":class") if alone else None

    @property
    def embedding(self) -> Layer:
        """What a classifier takes, as a map of one position: the class token, or the mean of the last map."""
        return self.class_token or Layer(self.last_map.path, pooled(self.last_map.read), label=":mean")

    @cached_property
    def levels(self) -> Mapping[int, Layer]:
        """The maps of its feature pyramid by stride in pixels, from the finest on; none where it has none."""
        return self.find_levels(self.module) if self.find_levels else {}

    @cached_property
    def head(self) -> DenseHead | None:
        """Its head over the levels of the pyramid, cut into two; ``None`` where it has none that can be cut."""
        return self.find_head(self.module, list(self.levels)) if self.find_head else None

    @cached_property
    def queries(self) -> Queries | None:
        """What its queries predict; ``None`` where it has none."""
        return self.find_queries(self.module) if self.find_queries else None
