import pytest
from PIL import Image

from limbeck.tasks.lettering import drawing_on, font_file


def test_names_with_letters_beyond_english_are_no_boxes():
    if font_file() is None:
        pytest.skip("no font of the system with more letters")
    font = drawing_on(Image.new("RGB", (8, 8))).getfont()
    box = bytes(font.getmask("\uffff"))
    assert not [letter for letter in "éüßñЯλ" if bytes(font.getmask(letter)) == box]
