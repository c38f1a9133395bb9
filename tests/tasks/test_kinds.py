import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import DetrConfig, RTDetrV2Config, SegformerConfig

from limbeck.tasks import TASKS, task_kind, task_kind_of


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("timm:resnet18", "classification"),
        ("torchvision:resnet18", "classification"),
        ("net.py:small", "classification"),  # of any kind; the first is taken
        ("smp:Unet/resnet18", "semantic"),
        ("torchvision:lraspp_mobilenet_v3_large", "semantic"),
        ("torchvision:retinanet/timm:resnet18", "detection"),
        ("torchvision:fasterrcnn_resnet50_fpn", "detection"),
    ],
)
def test_the_kind_of_task_is_known_by_the_name_of_the_model(model, task):
    assert task_kind_of(model).name == task


@pytest.mark.parametrize(
    ("config", "task"),
    [(DetrConfig, "detection"), (RTDetrV2Config, "detection"), (SegformerConfig, "semantic")],
)
def test_a_folder_of_transformers_is_of_the_kind_that_its_configuration_says(config, task, tmp_path):
    config().save_pretrained(tmp_path)
    assert task_kind_of(f"hf:{tmp_path}").name == task


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_of_the_kind_that_its_card_says(task, tmp_path):
    card = {"limbeck": json.dumps({"task": task})}
    save_file({"weight": torch.zeros(1)}, tmp_path / "student.safetensors", metadata=card)
    assert task_kind_of(str(tmp_path)) is task_kind(task)


def test_a_name_of_no_kind_says_what_there_is():
    with pytest.raises(ValueError, match=r"no model 'nothing': write timm:NAME, .*smp:ARCH/ENCODER, .* a finished run"):
        task_kind_of("nothing")
