import os

import pytest
from PIL import Image

from limbeck.data import index
from limbeck.data.index import check_image, index_of, sizes_of


@pytest.fixture
def paths(tmp_path):
    for number in range(4):
        Image.effect_noise((40, 30 + number), 50).save(tmp_path / f"{number}.jpg")
    return sorted(tmp_path.glob("*.jpg"))


@pytest.fixture
def looked(monkeypatch):
    """The names of the images that are decoded."""
    monkeypatch.setattr(index, "WORTH", 1)
    names = []

    def note(path):
        names.append(path.name)
        return check_image(path)

    monkeypatch.setattr(index, "check_image", note)
    return names


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "gif"])
def test_an_image_that_breaks_off_is_found_by_its_pixels(tmp_path, form):
    path = tmp_path / "image"
    Image.effect_noise((60, 50), 50).convert("RGB").save(path, form)
    assert check_image(path) == (50, 60)
    path.write_bytes(path.read_bytes()[:-400])
    assert "image cannot be read as an image" in check_image(path)


def test_sound_images_are_decoded_once_and_again_when_they_change(paths, looked, tmp_path):
    expected = [(30 + number, 40) for number in range(4)]
    assert sizes_of(paths, tmp_path) == expected
    assert sorted(looked) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    looked.clear()
    assert sizes_of(paths[::-1], tmp_path) == expected[::-1]
    assert looked == []
    Image.new("L", (7, 5)).save(paths[1])
    assert sizes_of(paths, tmp_path)[1] == (5, 7)
    assert looked == ["1.jpg"]
    looked.clear()
    os.utime(paths[2], ns=(0, 0))
    sizes_of(paths, tmp_path)
    assert looked == ["2.jpg"]


def test_how_far_the_check_is_is_shown(paths, looked, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(index, "track", lambda items, what, total: shown.append((what, total)) or items)
    sizes_of(paths, tmp_path)
    sizes_of(paths[:2], tmp_path)
    assert shown == [(f"checking images of {tmp_path}", 4), (f"checking images of {tmp_path}", 0)]


def test_bad_and_missing_images_are_told_in_their_places_and_looked_at_again(paths, looked, tmp_path):
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].unlink()
    for _ in range(2):
        sizes = sizes_of(paths, tmp_path)
        assert (sizes[0], sizes[3]) == ((30, 40), (33, 40))
        assert "1.jpg cannot be read" in sizes[1]
        assert "2.jpg cannot be read" in sizes[2]
    assert looked.count("1.jpg") == looked.count("2.jpg") == 2


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": 3}'])
def test_an_index_that_is_damaged_is_made_anew(paths, looked, tmp_path, content):
    sizes_of(paths, tmp_path)
    index_of(tmp_path).write_bytes(content)
    assert sizes_of(paths, tmp_path)[0] == (30, 40)
    assert len(looked) == 8


def test_where_nothing_can_be_written_images_are_checked_all_the_same(paths, looked, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert sizes_of(paths, tmp_path)[3] == (33, 40)


def test_a_user_without_a_home_gets_no_folder_of_that_name(paths, looked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where no user has this number
    for _ in range(2):
        assert sizes_of(paths, tmp_path)[3] == (33, 40)
    assert len(looked) == 8
    assert not list(tmp_path.glob("~*"))
