"""Small detectors of the DETR family: RT-DETR v2 with few channels, layers and queries (https://arxiv.org/abs/2407.17140)."""

from __future__ import annotations

from torch import nn
from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection

from limbeck.data.inputs import Inputs
from limbeck.tasks.detection.transformers import TransformerDetector

QUERIES = 20  # of which the scenes need four


def detr_large(num_classes: int) -> nn.Module:
    return detr(num_classes, widths=(16, 32, 64, 96), channels=64, layers=3)


def detr_small(num_classes: int) -> nn.Module:
    return detr(num_classes, widths=(8, 16, 32, 48), channels=32, layers=2)


def detr(num_classes: int, widths: tuple[int, ...], channels: int, layers: int) -> nn.Module:
    config = RTDetrV2Config(
        num_labels=num_classes - 1,  # without the background
        backbone_config={
            "model_type": "rt_detr_resnet",
            "embedding_size": widths[0],
            "hidden_sizes": list(widths),
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage2", "stage3", "stage4"],
        },
        encoder_in_channels=list(widths[1:]),
        encoder_hidden_dim=channels,
        encoder_ffn_dim=2 * channels,
        d_model=channels,
        decoder_in_channels=[channels] * 3,
        decoder_ffn_dim=2 * channels,
        decoder_layers=layers,
        num_queries=QUERIES,
        num_denoising=20,
        hidden_expansion=0.5,
    )
    return TransformerDetector(RTDetrV2ForObjectDetection(config), Inputs(None, (0.0,) * 3, (1.0,) * 3))
