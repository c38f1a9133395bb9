"""``limbeck export``: a run's student as .onnx, .pt2 or .xml, written only where it gives what the student gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from limbeck.commands.arguments import call
from limbeck.commands.comparison import Comparison, Precision
from limbeck.commands.record import data_of, sha256_of
from limbeck.commands.words import Run
from limbeck.export.deployed import Deployed
from limbeck.export.files import kind_of, read, write, write_onnx
from limbeck.export.openvino import convert
from limbeck.export.program import program_of
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import task_kind
from limbeck.tasks.kind import Validation
from limbeck.training.ranges import check_ranges
from limbeck.training.signals import ending_in_order

Card = dict[str, Any]
OF_CARD = ("task", "model", "classes", "mean", "std", "load_size", "short_side", "long_side")
CALIBRATED_ON = 128  # training images, of which int8 takes its ranges


def export(arguments: list[str]) -> None:
    """A run's student as a file for production."""
    call(_export, "limbeck export", arguments)


def _export(
    run: Run,
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    /,
    check: bool = False,
    weights: Literal["best", "last"] = "best",
    data: str | None = None,
    images: int = 256,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    half: bool = False,
    int8: bool = False,
    max_loss: float | None = None,
) -> None:
    """Export the student of a run: its normalisation inside, RGB images in [0, 1] as input.

    The file is compared with the student on the run's validation images: the outputs, at several numbers of images and
    sizes, and the metric. Where they differ, no file is written.

    Args:
        run: Folder of a run.
        file: What is written: .onnx, .pt2 (of torch.export) or .xml (of OpenVINO, with a .bin beside it).
        check: Write nothing, but check a file that was written before.
        weights: The student that was the best, or as it was at the end.
        data: Data as for limbeck train; by default those of the run.
        images: Validation images on which the metric is compared, evenly spread.
        batch: Fix the number of images to this; by default any may be given.
        size: Fix height and width, in pixels; by default those of a classifier are, and others take any.
        half: Compute in float16 (not .pt2).
        int8: Compute convolutions and products in int8, with ranges from training images (not .pt2).
        max_loss: What the metric may lose; by default 0.001, or 0.01 with --half and --int8.
    """
    folder = RunFolder(run)
    if not folder.has_student():
        raise ValueError(f"{folder} has no student: name the folder of a run of limbeck")
    student = folder.student_of(weights)
    precision = _precision(half, int8, kind_of(file))
    check_ranges({"images": images, "batch": batch, "size": size})
    card = folder.card()
    kind = task_kind(card["task"])
    model = kind.build(str(student), [])
    model.module.eval()
    deployed = _sized(kind.deploy(model), size)
    about = _about(card, student, deployed, batch, precision)
    comparison = Comparison(model, deployed, _validation(folder, card, data, images), max_loss)
    if check:
        run_file, stored = read(file)
        _check_same(file, stored, about)
        comparison.sized(stored["size"]).check(run_file, stored["batch"], stored["precision"])
    else:
        _write(file, deployed, about, comparison)
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, {about['input']}")


def _write(file: Path, deployed: Deployed, about: Card, comparison: Comparison) -> None:
    """Write a file, in a temporary folder until it was compared.

    Raises:
        ValueError: It gives something else than the student, and is not written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ending_in_order(), TemporaryDirectory(prefix=f".{file.stem}.", dir=file.parent) as folder:
            written = Path(folder) / file.name
            first = written if file.suffix == ".pt2" else written.with_suffix(".onnx")
            print(f"{file}: tracing the student, which may take minutes", flush=True)
            write(program_of(deployed, about["batch"]), deployed, about, first)
            if about["precision"] != "fp32":
                print(f"{file}: lowering the precision to {about['precision']}", flush=True)
                write_onnx(_lowered(first, about, comparison), about, first)
            if file.suffix == ".xml":
                convert(first, written)
                first.unlink()
            print(f"{file}: comparing what it gives with what the student gives", flush=True)
            comparison.check(read(written)[0], about["batch"], about["precision"])
            for part in sorted(written.parent.iterdir()):  # of OpenVINO's the .bin before the .xml, which needs it
                part.replace(file.with_name(part.name))
    except ValueError as error:
        raise ValueError(f"{file} was not written: {error}") from error


def _lowered(file: Path, about: Card, comparison: Comparison) -> Any:
    """The ONNX in a file, in float16 or int8."""
    from limbeck.export.precision import to_half, to_int8

    if about["precision"] == "fp16":
        return to_half(file)
    return to_int8(file, comparison.calibration(CALIBRATED_ON, about["batch"]))


def _precision(half: bool, int8: bool, ending: str) -> Precision:
    if half and int8:
        raise ValueError("--half and --int8 are two precisions; pass one of them")
    if (half or int8) and ending == ".pt2":
        raise ValueError("--half and --int8 are of .onnx and .xml; a .pt2 is in float32")
    return "fp16" if half else "int8" if int8 else "fp32"


def _sized(deployed: Deployed, size: tuple[int, int] | None) -> Deployed:
    if size is None or size == deployed.size:
        return deployed
    if deployed.size is not None:
        own = "{} {}".format(*deployed.size)
        raise ValueError(f"--size is {size[0]} {size[1]}, the student takes images of {own} alone; leave it out")
    return replace(deployed, size=size)


def _about(card: Mapping[str, Any], student: Path, deployed: Deployed, batch: int | None, precision: str) -> Card:
    """What a program that runs the file must know; of some tasks more."""
    height, width = deployed.size or ("H", "W")
    return {
        **{name: card[name] for name in OF_CARD if card.get(name) is not None},
        "input": f"images ({batch or 'B'}, 3, {height}, {width}) float32, RGB in [0, 1]",
        "outputs": list(deployed.outputs),
        "size": deployed.size,
        "batch": batch,
        "precision": precision,
        "version": version("limbeck"),
        "student": student.name,
        "sha256": sha256_of(student),
        **deployed.about,
    }


def _check_same(file: Path, stored: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse a file of another student, or one that says of itself what is not so."""
    if stored["sha256"] != about["sha256"]:
        raise ValueError(
            f"{file} was exported from another student (sha256 {stored['sha256'][:12]}..., this one's is "
            f"{about['sha256'][:12]}...); name its run, and --weights last where it was the last"
        )
    plain = json.loads(json.dumps(about))  # of tuples, lists
    for name in plain.keys() - {"batch", "input", "precision", "size", "version"}:
        if stored.get(name) != plain[name]:
            raise ValueError(f"{file} says {stored.get(name)!r} of {name}, the run {plain[name]!r}; export it again")


def _validation(run: RunFolder, card: Mapping[str, Any], data: str | None, images: int) -> Validation:
    """Validation images of a run, no more than so many."""
    data, held_out = data_of(run, data)
    validation = task_kind(card["task"]).validation(data, {**card, **held_out}, 1)
    validation.thin(images)
    return validation
