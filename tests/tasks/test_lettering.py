import pytest
import torch
from PIL import Image, ImageFont
from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.models.model import Model
from limbeck.tasks.classification.predictor import ImagePredictor
from limbeck.tasks.detection.pictures import outlined
from limbeck.tasks.lettering import drawing_on, font_file, missing_letters, tell_missing


def test_names_with_letters_beyond_english_are_no_boxes():
    if font_file() is None:
        pytest.skip("no font of the system with more letters")
    font = drawing_on(Image.new("RGB", (8, 8))).getfont()
    box = bytes(font.getmask("\uffff"))
    assert not [letter for letter in "éüßñЯλ" if bytes(font.getmask(letter)) == box]


def test_letters_that_no_font_has_are_told_with_their_names_and_once(capsys):
    names = ["cat", " dog"]  # of private use: no font has it
    assert missing_letters("".join(names)) == ""
    for _ in range(2):
        tell_missing(names)
    told = capsys.readouterr().err
    assert told.count("1 of 2 names of classes have letters for which boxes are drawn ()") == 1


def test_the_first_font_with_all_letters_is_taken_or_else_that_which_lacks_fewest(monkeypatch):
    letters = {"poor.ttf": "catr", "rich.ttf": "catr\u4e2d", "rest.ttf": "catr\u4e2d\u6587"}
    monkeypatch.setattr("limbeck.tasks.lettering.FONTS", ("nothing.ttf", *letters))
    monkeypatch.setattr(ImageFont, "truetype", lambda name, size: letters[name] if name in letters else absent(name))
    monkeypatch.setattr("limbeck.tasks.lettering._missing_of", lambda font, wanted: set(wanted) - set(font))
    assert font_file("cart") == "poor.ttf"
    assert font_file("cart\u4e2d") == "rich.ttf"
    assert missing_letters("cart\u4e2d\u8a9e") == "\u8a9e"


def test_on_a_large_photo_frames_and_letters_are_large_enough_to_be_seen():
    boxes, labels = torch.tensor([[300.0, 600, 2700, 3600]]), torch.tensor([0])
    drawn = outlined(torch.zeros(3, 4000, 3000, dtype=torch.uint8), boxes, labels, ["cat"])[0] > 0
    assert 8 <= drawn[3000, :1000].sum() <= 12  # of the left side of the frame
    model = Model(nn.Identity(), Inputs(64), ["cat", "dog"], card={"load_size": 64})
    named = ImagePredictor(model).draw(torch.zeros(3, 4000, 3000, dtype=torch.uint8), {"probabilities": torch.ones(2)})
    assert named.any(0).any(1).sum() >= 40
    small = ImagePredictor(model).draw(torch.zeros(3, 64, 64, dtype=torch.uint8), {"probabilities": torch.ones(2)})
    assert small.any(0).any(1).sum() < 16


def absent(name):
    raise OSError(name)
