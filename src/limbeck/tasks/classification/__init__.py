"""Image classification."""

from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.tasks.classification.models import SOURCES, build_classifier
from limbeck.tasks.classification.pictures import batch_panels
from limbeck.tasks.classification.predictor import ImagePredictor
from limbeck.tasks.classification.recipe import distill, train
from limbeck.tasks.classification.validation import ImageValidation
from limbeck.tasks.kind import TaskKind


def _load(model: Model, source: str, *, name: str) -> None:
    load_weights(model.module, source, name=name)


KIND = TaskKind(
    "classification", SOURCES, build_classifier, _load, distill, train, ImageValidation, ImagePredictor, batch_panels
)
