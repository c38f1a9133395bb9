import pytest
import timm
import torch
import torchvision
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from limbeck import Capture, Layer, class_token
from limbeck.core.projectors import pooled, tokens_to_map
from limbeck.data.inputs import Inputs
from limbeck.models.class_token import gives_by_class_token
from limbeck.models.model import Model
from tests.networks import TokenNet, convnet

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}


def vit(**options):
    torch.manual_seed(0)
    return timm.models.VisionTransformer(**SHAPE | options)


def with_zero_head():
    return torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=5)  # its head starts from zeros


def model_of(module):
    return Model(module, Inputs(16), list("abcde"))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (vit, "norm"),
        (lambda: vit(reg_tokens=2), "norm"),
        (lambda: VisionTransformerDistilled(**SHAPE), "norm"),
        (with_zero_head, "encoder"),
        (lambda: nn.Sequential(vit(), nn.Softmax(1)), "0.norm"),
    ],
    ids=["vit", "registers", "distilled", "zero head", "softmax"],
)
def test_the_embedding_is_the_class_token_where_the_scores_are_made_of_it_alone(make, path):
    model = model_of(make())
    assert str(model.embedding) == f"{path}:class"
    output, features = Capture(model.module.eval(), [model.embedding, model.last_map])(torch.randn(2, 3, 16, 16))
    assert features[model.embedding].shape == (2, 8, 1, 1)
    assert features[model.last_map].shape == (2, 8, 4, 4)  # the patches are still the last map
    assert output.isfinite().all()  # nothing stays of the trial


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: vit(global_pool="avg"), "blocks"),
        (lambda: vit(class_token=False, global_pool="avg"), "blocks"),
        (lambda: TokenNet(8), "block"),
        (lambda: convnet(4), "pool"),
    ],
    ids=["mean of the patches", "no class token", "mean of all tokens", "convolutions"],
)
def test_the_embedding_is_the_mean_of_the_last_map_of_every_other_network(make, path):
    model = model_of(make())
    assert model.class_token is None
    assert str(model.embedding) == f"{path}:mean"
    _, features = Capture(model.module.eval(), [model.embedding, model.last_map])(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(features[model.embedding], features[model.last_map].mean((2, 3), keepdim=True))


def test_the_trial_leaves_modes_and_hooks_as_they_were():
    module = vit().train()
    module.norm.eval()
    assert model_of(module).class_token is not None
    assert module.training
    assert not module.norm.training
    assert not any(each._forward_hooks for each in module.modules())


def test_reads_of_the_embedding():
    tokens = torch.randn(2, 5, 3)
    assert torch.equal(class_token(tokens), tokens[:, 0].reshape(2, 3, 1, 1))
    assert torch.equal(class_token((tokens, None)), class_token(tokens))
    assert pooled()(torch.ones(2, 3, 4, 4)).shape == class_token(tokens).shape


class Boxes(nn.Module):
    """Tokens that may be a class token and patches, and a list of detections."""

    def __init__(self):
        super().__init__()
        self.sides = nn.Identity()

    def forward(self, images):
        return [{"boxes": each} for each in self.sides(torch.rand(len(images), 17, 4))]


def test_what_gives_no_tensor_of_scores_is_no_classifier_of_a_class_token():
    last = Layer("sides", tokens_to_map(prefix=1))
    assert not gives_by_class_token(Boxes(), torch.rand(1, 3, 32, 32), last, Layer(""))
