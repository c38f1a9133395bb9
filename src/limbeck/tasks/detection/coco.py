"""COCO's json and the images that it names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from limbeck.data.parts import NAMES, Part, Source, folders_in, part_named, parts_in, refuse_unknown, resembles_part
from limbeck.data.problems import OnBadData
from limbeck.tasks.detection.assemble import assemble
from limbeck.tasks.detection.checks import image_path, read_json
from limbeck.tasks.detection.dataset import Objects

OF_OTHER_TASKS = ("person_keypoints_", "captions_", "image_info_", "panoptic_", "stuff_")  # COCO's own beside these
ROBOFLOW = "_annotations.coco.json"  # beside its images


def find_coco(data: Path, on_bad: OnBadData, outlines: bool) -> dict[Part, Source[Objects]]:
    """The parts of which there is a json.

    Raises:
        ValueError: Nothing is held out, but a json or its folder may be a part by another name.
    """
    found = {part: (path / ROBOFLOW, path) for part, path in parts_in(data).items() if (path / ROBOFLOW).is_file()}
    jsons = {path.stem.lower(): path for path in sorted((data / "annotations").glob("*.json"))}
    for part, names in NAMES.items():
        stems = [stem for name in names for stem in (f"instances_{name}", name) if stem in jsons]
        if part not in found and stems:
            found[part] = jsons[stems[0]], _images_of(data, part, jsons[stems[0]])
    known = {stem for names in NAMES.values() for name in names for stem in (f"instances_{name}", name)}
    unknown = [path for stem, path in jsons.items() if resembles_part(stem) and stem not in known]
    unknown = [path for path in unknown if not path.stem.startswith(OF_OTHER_TASKS)]
    folders = [each / ROBOFLOW for each in folders_in(data) if part_named(each.name) is None]
    refuse_unknown(found, [*unknown, *filter(Path.is_file, folders)])
    return {
        part: partial(read_coco, file, folder, on_bad=on_bad, outlines=outlines)
        for part, (file, folder) in found.items()
    }


def _images_of(data: Path, part: Part, file: Path) -> Path:
    """The image folder of a part."""
    name = file.stem.removeprefix("instances_")
    folders = [data / "images" / name, data / name]
    folders += [parts_in(folder).get(part, folders[0]) for folder in (data / "images", data) if folder.is_dir()]
    return next(folder for folder in (*folders, data / "images", data) if folder.is_dir())


def read_coco(
    file: Path,
    folder: Path,
    classes: list[str] | None = None,
    *,
    on_bad: OnBadData = "error",
    outlines: bool = False,
) -> Objects:
    """The objects that a json describes, in images of a folder.

    Args:
        file: The json.
        folder: Of the images.
        classes: What the categories' names should be; their order is then that of the classes, else that of their ids.
        on_bad: What becomes of an image that is missing, unreadable or of another size than its json says, and of an
            annotation that makes no sense: an error, or left out and counted in the notes.
        outlines: Also want each object's outline.
    """
    content = read_json(file)
    return assemble(
        content,
        [image_path(entry, folder) for entry in content["images"]],
        of=file,
        folder=folder,
        classes=classes,
        on_bad=on_bad,
        outlines=outlines,
        origin=f"of {folder} by the COCO json {file}",
    )
