"""Image classification."""

from limbeck.models.teachers import load_teacher
from limbeck.tasks.classification.deploy import deploy
from limbeck.tasks.classification.hub import HUB
from limbeck.tasks.classification.models import SOURCES, build_classifier
from limbeck.tasks.classification.pictures import batch_panels
from limbeck.tasks.classification.predictor import ImagePredictor
from limbeck.tasks.classification.recipe import distill, train
from limbeck.tasks.classification.validation import ImageValidation
from limbeck.tasks.kind import TaskKind

KIND = TaskKind(
    "classification",
    SOURCES,
    build_classifier,
    load_teacher,
    distill,
    train,
    ImageValidation,
    ImagePredictor,
    deploy,
    HUB,
    batch_panels,
    compress_method=("KD",),
)
