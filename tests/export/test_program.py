import pytest
import torch
from torch import nn

from limbeck.export.deployed import Deployed
from limbeck.export.files import read, write
from limbeck.export.parity import LARGEST, differences
from limbeck.export.program import ASSERTS, program_of
from limbeck.tasks.detection.deploy import deploy
from limbeck.tasks.detection.models import build_detector

CARD = {"sha256": "of a student", "outputs": ["boxes", "scores"]}


class Sized(nn.Module):
    """A network that takes ``len`` and ``int`` of the sides of its images, as those of transformers do."""

    def forward(self, images):
        rows = torch.arange(int(images.shape[2]))
        return (images.mean((1, 3)) @ rows.float() + torch.zeros(len(images)),)


class OneSize(nn.Module):
    def forward(self, images):
        assert images.shape[2] == 160
        return (images.mean((1, 2, 3)),)


def deployed(module):
    return Deployed(module, ("logits",), lambda run, size: module)


def test_a_network_that_takes_len_and_int_of_its_sides_stays_open_for_any():
    program = program_of(deployed(Sized()), None).module()
    images = torch.rand(3, 3, 96, 128)
    torch.testing.assert_close(program(images)[0], Sized()(images)[0])


@pytest.mark.parametrize("batch", [None, 1])
def test_an_image_size_that_cannot_be_left_open_says_how_to_fix_it(batch):
    with pytest.raises(ValueError, match=r"image size cannot be left open.*--size 480 640"):
        program_of(deployed(OneSize()), batch)


@pytest.fixture(scope="module")
def rt_detr(tmp_path_factory):
    """An RT-DETR v2 as it is built, whose queries are all as good as each other, with its graph for any images."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("rt_detr_v2")
    sizes = {"encoder_hidden_dim": 16, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    one_level = {
        "encoder_in_channels": [16],
        "decoder_in_channels": [16],
        "feat_strides": [32],
        "encode_proj_layers": [0],
    }
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    levels = {"num_feature_levels": 1, "decoder_n_levels": 1, "decoder_layers": 2, "num_queries": 10}
    transformers.RTDetrV2Config(
        backbone_config=backbone, num_labels=3, **sizes, **heads, **one_level, **levels
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = build_detector(f"hf:{folder}", ["circle", "square", "triangle"])
    model.module.eval()
    return deploy(model), program_of(deploy(model), None)


def test_an_rt_detr_is_exported_for_any_number_of_images_of_any_size(rt_detr, tmp_path):
    detector, program = rt_detr
    assert detector.unordered
    assert not [node for node in program.graph.nodes if node.target is ASSERTS]
    write(program, detector, CARD, tmp_path / "student.pt2")
    run, _ = read(tmp_path / "student.pt2")
    for found in differences(detector, run, [torch.rand(1, 3, 160, 224), torch.rand(3, 3, 200, 330)]):
        assert found.relative <= LARGEST
