"""``limbeck predict``: what a run's student says of images."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from limbeck.commands.arguments import call
from limbeck.commands.coco_file import CocoFile
from limbeck.commands.words import Run
from limbeck.data.images import EXTENSIONS, no_image_in, read_image, to_pil_image
from limbeck.data.parts import files_below
from limbeck.data.problems import OnBadData
from limbeck.data.progress import track
from limbeck.models.build import student_file
from limbeck.models.run_folder import read_card
from limbeck.tasks import task_kind
from limbeck.tasks.lettering import tell_missing
from limbeck.tasks.pictures import legend
from limbeck.tasks.predictor import SCORE, Predictor
from limbeck.training.ranges import check_ranges
from limbeck.training.signals import ending_in_order


def predict(arguments: list[str]) -> None:
    """What a run's student says of images."""
    with ending_in_order():
        call(_predict, "limbeck predict", arguments)


def load(run: str | Path) -> Predictor:
    """The student of a run with its preprocessing: ``limbeck.load("runs/a").predict("photo.jpg")``.

    Args:
        run: Its folder, whose best student is taken, or the file of a student, such as ``student-last.safetensors``.

    Raises:
        ValueError: The folder holds no student.
    """
    file = student_file(str(run))
    if not file.is_file():
        raise ValueError(f"{run} has no student: name the folder of a run of limbeck")
    kind = task_kind(read_card(file)["task"])
    return kind.predictor(kind.build(str(file), []))


def _predict(
    run: Run,
    images: Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")],
    /,
    out: Path,
    pictures: bool = True,
    score: float = SCORE,
    on_bad_data: OnBadData = "error",
) -> None:
    """Predict images with the student of a run.

    Writes predictions.json (the likeliest classes; each class's share of the pixels; objects with boxes in pixels,
    which coco.json has as COCO's json), index masks as masks/NAME.png or the mask of each object as
    masks/NAME-NNN.png, and each image with what was predicted drawn on it as pictures/NAME.png; where colours tell the
    classes, pictures/classes.png tells the colours. After an error or a signal, predictions.json has the images before
    it.

    Args:
        run: Folder of a run, or the file of a student in it.
        images: Files, and folders whose images are taken with all that lies below, such as the frames of a video; but
            for what an earlier prediction wrote there.
        out: Folder for what is written.
        pictures: Draw the images.
        score: Least score of an object of a detector that is drawn; the json have all that it finds.
        on_bad_data: What becomes of an image that cannot be read: an error, or left out and counted (skip).
    """
    check_ranges({"score": score})
    predictor = load(run)
    files = images_in(images)
    if pictures:
        tell_missing(predictor.classes)
    answers: dict[str, Any] = {}
    coco = CocoFile(predictor.classes)
    skipped = 0
    try:
        for name, file in track(files.items(), "predicting", len(files)):
            try:
                image = read_image(file)
            except ValueError as error:
                if on_bad_data == "error":
                    raise ValueError(f"{error}, or pass --on-bad-data skip") from None
                skipped += 1
                continue
            prediction = predictor.predict(image)
            predictor.write(name, prediction, out)
            if pictures:
                path = out / "pictures" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                to_pil_image(predictor.draw(image, prediction, score)).save(path)
            if (found := predictor.annotations(prediction)) is not None:
                coco.add(name if str(file).endswith(name) else f"{name}{file.suffix}", image.shape[1:], found)
            answers[name] = {"image": str(file), **predictor.describe(prediction)}
        if not answers:
            raise ValueError(f"none of the {len(files)} images could be read")
    except BaseException as error:  # of a signal, too
        if answers:
            file = _write(answers, predictor, out, coco, pictures=pictures)
            error.add_note(f"what was predicted before, {len(answers)} of {len(files)} images, is in {file}")
        raise
    left_out = f", {skipped} left out that cannot be read" if skipped else ""
    print(f"{len(answers)} images{left_out}: {_write(answers, predictor, out, coco, pictures=pictures)}")


def _write(answers: dict[str, Any], predictor: Predictor, out: Path, coco: CocoFile, *, pictures: bool) -> Path:
    """Write what was predicted, objects as COCO's json too, and what tells the colours of the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "predictions.json"
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    try:
        file.write_bytes(text.encode())
    except UnicodeEncodeError:  # of a file's name that is no text
        file.write_text(json.dumps(answers, indent=1))
    if coco.images:
        coco.write(out / "coco.json")
    if pictures and predictor.tells_by_colour:
        legend(predictor.classes).save(out / "pictures" / "classes.png")
    return file


def images_in(paths: Sequence[Path]) -> dict[str, Path]:
    """Image files by a name of their own, which is the path below the folder that was named.

    Without its ending, but where others in the folder differ in that alone, as ``a.jpg`` and ``a.png``.

    Raises:
        ValueError: No path is there, one does not exist, holds no image, or gives a name that another has.
    """
    found: dict[str, Path] = {}
    if not paths:
        raise ValueError("name the images, or folders of images, that are to be predicted")
    for path in paths:
        if not path.exists():
            raise ValueError(f"no file or folder {path}")
        inside = _images_below(path) if path.is_dir() else [path]
        if not inside:
            raise no_image_in(path)
        below = [file.relative_to(path) if path.is_dir() else Path(file.name) for file in inside]
        alike = Counter(each.with_suffix("") for each in below)
        for file, each in zip(inside, below, strict=True):
            name = str(each if alike[each.with_suffix("")] > 1 else each.with_suffix(""))
            if name in found:
                raise ValueError(f"{found[name]} and {file} would both be written as {name}; predict them apart")
            found[name] = file
    return found


def _images_below(folder: Path) -> list[Path]:
    """The images of a folder, but for what an earlier prediction wrote into it, which is counted."""
    images = [file for file in files_below(folder) if file.suffix.lower() in EXTENSIONS]
    given = [image for image in images if not _is_predicted(image)]
    if count := len(images) - len(given):
        print(f"left out {count} pictures and masks below {folder}, which an earlier prediction wrote", file=sys.stderr)
    return given


def _is_predicted(image: Path) -> bool:
    written = [folder for folder in image.parents if folder.name in ("pictures", "masks")]
    return any((folder.parent / "predictions.json").is_file() for folder in written)
