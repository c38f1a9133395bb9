"""What the Hugging Face hub is told of segmenters."""

from limbeck.tasks.kind import OnHub

SMP = """\
import segmentation_models_pytorch as smp

model = smp.create_model(*"{name}".split("/"), encoder_weights=None, classes={classes})"""
TORCHVISION = """\
from torchvision.models import get_model

options = {{}} if "{name}".startswith("lraspp") else {{"aux_loss": True}}
model = get_model("{name}", weights=None, weights_backbone=None, num_classes={classes}, **options)"""

HUB = OnHub("image-segmentation", {"smp": SMP, "torchvision": TORCHVISION})
