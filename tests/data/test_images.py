import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from limbeck.data.images import (
    TURNS,
    pil_to_tensor,
    read_image,
    said_otherwise,
    size_of,
    to_pil_image,
    typical_size,
)

HEIGHT, WIDTH = 6, 10
ORIENTATION = 0x0112


def ramp(low, high, kind):
    """Grey pixels that rise from left to right."""
    return np.linspace(low, high, WIDTH).astype(kind)[None].repeat(HEIGHT, 0)


def shades(path):
    """The grey of each column, which all rows and channels share."""
    pixels = read_image(path)
    assert pixels.shape == (3, HEIGHT, WIDTH)
    assert pixels.dtype == torch.uint8
    assert (pixels == pixels[:1, :1]).all()
    return pixels[0, 0].tolist()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_of_16_bits_the_upper_8_are_kept(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    values = ramp(0, 65535, np.uint16)
    Image.fromarray(values).save(path)
    assert shades(path) == (values[0] // 256).tolist()


def test_grey_of_32_bits_is_read_where_it_fits_into_16(tmp_path):
    path = tmp_path / "a.tif"
    values = ramp(0, 65535, np.int32)
    Image.fromarray(values).save(path)
    assert shades(path) == (values[0] // 256).tolist()
    Image.fromarray(ramp(-5, 70000, np.int32)).save(path)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read.*from -5 to 70000, which should be from 0 to 65535"):
        read_image(path)


@pytest.mark.parametrize("highest", [1, 255])
def test_floating_point_pixels_are_shares_or_from_0_to_255(tmp_path, highest):
    path = tmp_path / "a.tif"
    Image.fromarray(ramp(0, highest, np.float32)).save(path)
    assert shades(path) == np.rint(np.linspace(0, 255, WIDTH)).astype(int).tolist()


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 3000), (0, float("nan"))])
def test_floating_point_pixels_of_another_range_are_refused(tmp_path, low, high):
    path = tmp_path / "a.tif"
    Image.fromarray(ramp(low, high, np.float32)).save(path)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read.*which should be from 0 to 255"):
        read_image(path)


@pytest.mark.parametrize(("high", "kind"), [(200, np.uint16), (255, np.int32), (1.02, np.float32)])
def test_pixels_that_would_all_come_out_black_are_refused(tmp_path, high, kind):
    path = tmp_path / "a.tif"
    Image.fromarray(ramp(0, high, kind)).save(path)
    with pytest.raises(ValueError, match=rf"a\.tif cannot be read.*from 0 to {high}, which is black where .* 8 bits"):
        read_image(path)
    Image.fromarray(ramp(0, 0, kind)).save(path)  # a lens cap
    assert shades(path) == [0] * WIDTH


def photograph():
    """White above, red at the left, so that every turn and mirror image of it differs."""
    pixels = np.zeros((HEIGHT * 8, WIDTH * 8, 3), np.uint8)
    pixels[:8] = 255
    pixels[8:, :8, 0] = 255
    return Image.fromarray(pixels)


BACK = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the others are their own inverse


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = photograph()
    lossless = {"lossless": True} if ending == "webp" else {}
    upright.transpose(BACK.get(orientation, TURNS[orientation])).save(path, exif=exif, **lossless)
    assert size_of(path) == (upright.height, upright.width)
    seen = read_image(path).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(seen - np.asarray(upright).astype(int)).mean() < 4  # of 255: the loss of a JPEG


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photograph().save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png").permute(1, 2, 0).numpy() == np.asarray(photograph())).all()


def test_damaged_exif_is_no_reason_to_refuse_the_pixels(tmp_path):
    photograph().save(tmp_path / "a.png", exif=b"Exif\0\0no exif at all")
    assert size_of(tmp_path / "a.png") == (HEIGHT * 8, WIDTH * 8)
    assert read_image(tmp_path / "a.png").shape == (3, HEIGHT * 8, WIDTH * 8)


def test_an_annotation_of_the_unturned_image_is_told_of_its_orientation(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert said_otherwise(path, (40, 30), "its json says") == ""
    assert "a.jpg is 30x40 pixels, its json says 40x30; it is turned as its EXIF orientation says" in said_otherwise(
        path, (30, 40), "its json says"
    )
    assert said_otherwise(path, (9, 9), "its json says").endswith("a.jpg is 30x40 pixels, its json says 9x9")


def test_an_image_above_the_limit_of_pil_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for read in (read_image, size_of):
        with pytest.raises(ValueError, match=r"large\.png has more pixels than PIL opens .*1200 pixels.*cut it into"):
            read(tmp_path / "large.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PIL, of tags that it leaves out
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "bmp", "tiff", "gif", "ppm"])
def test_a_damaged_file_is_read_or_refused_as_no_image(tmp_path, form):
    """Whatever PIL raises of it."""
    file = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(file, form)
    whole = np.frombuffer(file.getvalue(), np.uint8)
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged"
    refused = 0
    for trial in range(60):
        content = whole.copy()[: len(whole) if trial % 2 else generator.integers(len(whole))]
        if len(content):
            places = generator.integers(min(len(content), 200 if trial % 3 else len(content)), size=trial % 4)
            content[places] = generator.integers(256, size=len(places))
        path.write_bytes(content.tobytes())
        for read in (size_of, read_image):
            with contextlib.suppress(ValueError):
                read(path)
                continue
            refused += 1
    assert refused > 20


def test_the_typical_size_is_no_single_images(tmp_path):
    paths = []
    for number, size in enumerate([(1, 1), (40, 30), (40, 30), (32, 34), (4000, 10)]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("L", size).save(paths[-1])
    assert typical_size(paths) == (30, 40)
    assert typical_size(paths[1:2] * 300 + paths[:1] * 100) == (30, 40)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_pixels_are_those_that_torchvision_gives(mode):
    values = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    image = to_pil_image(values).convert(mode)
    assert torch.equal(pil_to_tensor(image), functional.pil_to_tensor(image))
    assert pil_to_tensor(image).dtype == functional.pil_to_tensor(image).dtype
    assert to_pil_image(values) == functional.to_pil_image(values)
