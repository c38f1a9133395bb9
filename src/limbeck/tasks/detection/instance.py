"""Instance segmentation: as object detection, with masks."""

from __future__ import annotations

from dataclasses import replace

from limbeck.tasks.detection import KIND as DETECTION
from limbeck.tasks.detection.options import Data, LevelOptions, StudentOptions
from limbeck.tasks.detection.recipe import Recipes

OF_MASKS = Recipes(masks=True)
distill, train = OF_MASKS.distill, OF_MASKS.train
KIND = replace(DETECTION, name="instance", distill=distill, train=train)

__all__ = ["KIND", "Data", "LevelOptions", "StudentOptions", "distill", "train"]
