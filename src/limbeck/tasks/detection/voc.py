"""Pascal VOC's xml files, one an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from limbeck.data.images import EXTENSIONS
from limbeck.data.index import sizes_of
from limbeck.data.parts import Part, Source, files_below, folders_in, parts_in, refuse_unknown, resembles_part
from limbeck.data.problems import OnBadData, Problem
from limbeck.data.voc import images_of, root_of, stems_of
from limbeck.tasks.detection.assemble import assemble
from limbeck.tasks.detection.checks import Entry
from limbeck.tasks.detection.dataset import Objects

CORNERS = ("xmin", "ymin", "xmax", "ymax")
Pairs = list[tuple[Path, Path]]  # images and their xml files


def find_voc(data: Path, on_bad: OnBadData) -> dict[Part, Source[Objects]]:
    """Parts that are listed in ``ImageSets/Main``, or folders in which each xml lies beside its image."""
    root = root_of(data)
    if root is not None and (root / "Annotations").is_dir():
        images = images_of(root)
        files: dict[Part, Pairs] = {}
        for part, stems in stems_of(root, "Main").items():
            missing = root / "JPEGImages"
            pairs = [(images.get(stem, missing / stem), root / "Annotations" / f"{stem}.xml") for stem in stems]
            files[part] = pairs
        if not files:
            files["train"] = [(path, root / "Annotations" / f"{stem}.xml") for stem, path in images.items()]
        return {part: partial(read_voc, pairs, of=root, on_bad=on_bad) for part, pairs in files.items()}
    parts = parts_in(data)
    others = [each for each in folders_in(data) if each not in parts.values() and (parts or resembles_part(each.name))]
    if len(parts) < 2:
        refuse_unknown(parts, [each for each in others if _beside(each)[0]])
    folders = parts or {"train": data}
    found = {part: _beside(folder) for part, folder in folders.items()}
    return {
        part: partial(read_voc, pairs, of=folders[part], on_bad=on_bad, without=without)
        for part, (pairs, without) in found.items()
        if pairs
    }


def _beside(folder: Path) -> tuple[Pairs, int]:
    """Images below a folder with the xml file of their name and folder, or else of their name; and how many have none.

    An annotation without its image is there too, with a path at which there is none.
    """
    files = files_below(folder)
    xmls = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".xml"}
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    elsewhere: dict[str, list[Path]] = {}
    for place in xmls.keys() - {path.with_suffix("") for path in images}:
        elsewhere.setdefault(place.name, []).append(xmls[place])
    pairs: Pairs = []
    for image in images:
        others = sorted(elsewhere.get(image.stem, []))
        if (beside := xmls.get(image.with_suffix(""))) is None and len(others) > 1:
            raise ValueError(
                f"{image} has several xml files of its name in other folders, {others[0]} and {others[1]}; keep one, "
                "or put each beside its image"
            )
        if xml := beside or next(iter(others), None):
            pairs.append((image, xml))
    taken = {xml for _, xml in pairs}
    alone = [path for path in xmls.values() if path not in taken and pairs and _is_annotation(path)]
    return pairs + [(path.with_suffix(""), path) for path in alone], len(images) - len(pairs)


def _is_annotation(path: Path) -> bool:
    """Whether an xml file is one of Pascal VOC's; other tools leave theirs."""
    try:
        return ElementTree.parse(path).getroot().tag == "annotation"
    except (OSError, ElementTree.ParseError):
        return False


def read_voc(
    pairs: Pairs, classes: list[str] | None = None, *, of: Path, on_bad: OnBadData = "error", without: int = 0
) -> Objects:
    """The objects that xml files describe; those that are called difficult are heeded in measuring only, as crowds.

    Args:
        pairs: Images and their xml files.
        classes: Those that there may be; by default all that there are, in alphabetical order.
        of: The folder.
        on_bad: What becomes of images and objects that make no sense.
        without: How many images have no xml file, so that nobody knows what is on them.
    """
    paths: list[Path | Problem] = [
        path if path.is_file() else Problem("missing images", f"{path}, the image of {xml}, does not exist")
        for path, xml in pairs
    ]
    sizes = iter(sizes_of([path for path in paths if isinstance(path, Path)], of))
    entries: list[Entry] = []
    annotations: list[Entry] = []
    for identity, (path, xml) in enumerate(pairs):
        size = next(sizes) if isinstance(paths[identity], Path) else ""
        height, width = (1, 1) if isinstance(size, str) else size
        entries.append({"id": identity, "file_name": path.name, "height": height, "width": width})
        try:
            found, stated = _annotations(xml, identity)
            annotations += found
            entries[-1] |= stated
        except (OSError, ElementTree.ParseError) as error:
            paths[identity] = Problem("unreadable xml files", f"{xml} cannot be read as xml ({error})")
    names = classes or sorted({str(each["category_id"]) for each in annotations})
    places = {name: index for index, name in enumerate(names)}
    for each in annotations:
        each["category_id"] = places.get(each["category_id"], each["category_id"])
    objects = assemble(
        {
            "images": entries,
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for name, index in places.items()],
        },
        paths,
        of=of,
        folder=of,
        classes=classes,
        on_bad=on_bad,
        outlines=False,
        origin=f"of {of} with the xml files of Pascal VOC",
    )
    objects.notes.extend([f"{of}: {without} images have no xml file, and are left out"] * bool(without))
    return objects


def _annotations(xml: Path, image: int) -> tuple[list[Entry], dict[str, int]]:
    """Objects, and the height and width of the image where the xml states them; some tools write 0.

    Corners count pixels from 1 and belong to the object, so left and top are one less here.
    """
    found: list[Entry] = []
    content = ElementTree.parse(xml)
    stated = {side: (content.findtext(f"size/{side}") or "").strip() for side in ("height", "width")}
    size = {side: int(value) for side, value in stated.items() if value.isdecimal() and int(value)}
    for number, each in enumerate(content.iter("object"), 1):
        box: list[float] | str = "of no four numbers"
        try:
            left, top, right, bottom = (float(each.findtext(f"bndbox/{name}") or "") for name in CORNERS)
            left, top = max(left - 1, 0), max(top - 1, 0)
            box = [left, top, right - left, bottom - top]
        except ValueError:
            pass
        found.append(
            {
                "id": f"{xml}, object {number},",
                "image_id": image,
                "category_id": (each.findtext("name") or "").strip(),
                "bbox": box,
                "iscrowd": int((each.findtext("difficult") or "0").strip() == "1"),
            }
        )
    return found, size
