"""Semantic segmentation."""

from limbeck.models.teachers import load_teacher
from limbeck.tasks.kind import TaskKind
from limbeck.tasks.semantic.deploy import deploy
from limbeck.tasks.semantic.hub import HUB
from limbeck.tasks.semantic.models import SOURCES, build_segmenter
from limbeck.tasks.semantic.pictures import batch_panels
from limbeck.tasks.semantic.predictor import MaskPredictor
from limbeck.tasks.semantic.recipe import distill, train
from limbeck.tasks.semantic.validation import MaskValidation

KIND = TaskKind(
    "semantic",
    SOURCES,
    build_segmenter,
    load_teacher,
    distill,
    train,
    MaskValidation,
    MaskPredictor,
    deploy,
    HUB,
    batch_panels,
)
