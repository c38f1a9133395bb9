import pytest
import torch
from torch import nn

from limbeck.tasks.detection.deploy import deploy
from limbeck.tasks.detection.models import build_detector

CLASSES = ["circle", "square", "triangle"]


@pytest.mark.parametrize("head", ["retinanet", "fcos", "ssdlite"])
def test_objects_chosen_from_all_boxes_are_those_that_the_detector_gives(head):
    torch.manual_seed(0)
    model = build_detector(f"torchvision:{head}/timm:test_efficientnet", CLASSES)
    detector = model.module.eval()
    for parameter in detector.head.parameters():  # an untrained one is sure of nothing
        nn.init.normal_(parameter, std=0.02)
    detector.topk_candidates = 10**6  # torchvision's RetinaNet and FCOS score the background, too, and may choose it
    deployed = deploy(model)
    image = torch.rand(3, 90, 130)
    with torch.no_grad():
        expected = detector([image])[0]
    given = deployed.as_student(deployed.run, None)([image])[0]
    real = expected["labels"] > 0
    count = min(10, int(real.sum()))
    assert count >= 5
    assert given["labels"][:count].tolist() == expected["labels"][real][:count].tolist()
    for name in ("scores", "boxes"):
        torch.testing.assert_close(given[name][:count], expected[name][real][:count], rtol=1e-4, atol=1e-3)


def test_a_detector_of_two_stages_is_refused_with_the_reason():
    model = build_detector("torchvision:fasterrcnn/timm:test_efficientnet", CLASSES)
    with pytest.raises(ValueError, match="a FasterRCNN cannot be exported: how many regions its second stage looks at"):
        deploy(model)
