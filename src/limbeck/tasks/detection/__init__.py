"""Object detection."""

from limbeck.tasks.detection.checkpoints import load_detector
from limbeck.tasks.detection.deploy import deploy
from limbeck.tasks.detection.hub import HUB
from limbeck.tasks.detection.models import SOURCES, build_detector
from limbeck.tasks.detection.pictures import batch_panels
from limbeck.tasks.detection.predictor import ObjectPredictor
from limbeck.tasks.detection.recipe import distill, train
from limbeck.tasks.detection.validation import ObjectValidation
from limbeck.tasks.kind import TaskKind

KIND = TaskKind(
    "detection",
    SOURCES,
    build_detector,
    load_detector,
    distill,
    train,
    ObjectValidation,
    ObjectPredictor,
    deploy,
    HUB,
    batch_panels,
)
