"""Image classification."""

from limbeck.tasks.classification.deploy import deploy
from limbeck.tasks.classification.hub import HUB
from limbeck.tasks.classification.models import SOURCES, build_classifier
from limbeck.tasks.classification.pictures import batch_panels
from limbeck.tasks.classification.predictor import ImagePredictor
from limbeck.tasks.classification.recipe import distill, train
from limbeck.tasks.classification.validation import ImageValidation
from limbeck.tasks.kind import TaskKind, load_every_tensor

KIND = TaskKind(
    "classification",
    SOURCES,
    build_classifier,
    load_every_tensor,
    distill,
    train,
    ImageValidation,
    ImagePredictor,
    deploy,
    HUB,
    batch_panels,
)
