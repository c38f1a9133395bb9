"""What detectors find in images as COCO's json, which labelling tools and limbeck itself read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class CocoFile:
    """Images and objects by COCO's names; categories count from 1, in the order of the classes."""

    def __init__(self, classes: list[str]):
        self.categories = [{"id": index, "name": name} for index, name in enumerate(classes, 1)]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, name: str, size: tuple[int, ...], objects: list[dict[str, Any]]) -> None:
        """Add an image of this height and width, called by its path below the folder that was named."""
        image = len(self.images) + 1
        self.images.append({"id": image, "file_name": name, "height": size[0], "width": size[1]})
        for each in objects:
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": image, **each})

    def write(self, file: Path) -> None:
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        file.write_text(json.dumps(content))  # in ASCII, as names of files may be no text
