"""Semantic segmentation."""

from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.tasks.kind import TaskKind
from limbeck.tasks.semantic.models import SOURCES, build_segmenter
from limbeck.tasks.semantic.pictures import batch_panels
from limbeck.tasks.semantic.predictor import MaskPredictor
from limbeck.tasks.semantic.recipe import distill, train
from limbeck.tasks.semantic.validation import MaskValidation


def _load(model: Model, source: str, *, name: str) -> None:
    load_weights(model.module, source, name=name)


KIND = TaskKind(
    "semantic", SOURCES, build_segmenter, _load, distill, train, MaskValidation, MaskPredictor, batch_panels
)
