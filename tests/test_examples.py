"""The examples run, and what they make is as they say."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.places import ROOT

EXAMPLES = ROOT / "examples"
LOOP = (  # as the documentation shows it
    'distiller = Distiller(student, teacher, [Match("layer4", "layer4", ChannelTransform(), weight="auto")], '
    "example=(images,))",
    "for images, labels in loader:",
    "out = distiller(images)",
    "loss = F.cross_entropy(out.output, labels) + out.loss",
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only wait for one another on networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_learnt(accuracies: dict[str, float], student: float) -> None:
    """Ten classes: chance is 0.1."""
    assert accuracies["teacher"] > 0.8
    assert accuracies["student"] > student


def parts(state: dict[str, Tensor]) -> set[str]:
    """What a checkpoint holds, by the first two words of the names in it."""
    return {".".join(name.split(".")[:2]) for name in state}


def test_own_loop(tmp_path: Path) -> None:
    example = load("own_loop")
    accuracies = example.main(student_file=tmp_path / "student.safetensors")
    assert_learnt(accuracies, student=0.8)
    alone = example.conv_net(width=8)
    alone.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    images, labels = example.load_digits(return_X_y=True)
    alone.eval()
    said = alone(torch.tensor(images).float().view(-1, 1, 8, 8) / 16).argmax(1)
    assert (said == torch.tensor(labels)).float().mean() > 0.8


def test_own_loop_is_the_loop_of_the_documentation() -> None:
    lines = (EXAMPLES / "own_loop.py").read_text().splitlines()
    code = [line.partition("  # fmt: skip")[0].strip() for line in lines]
    assert [line for line in LOOP if line not in code] == []


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
def test_lightning_module(tmp_path: Path) -> None:
    accuracies = load("lightning_module").main(folder=tmp_path)
    assert_learnt(accuracies, student=0.6)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert parts(state) == {"network.student", "network.matches"}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_hf_trainer(tmp_path: Path) -> None:
    example = load("hf_trainer")
    accuracies = example.main(folder=tmp_path)
    assert_learnt(accuracies, student=0.6)
    (checkpoint,) = tmp_path.glob("checkpoint-*/model.safetensors")
    state = load_file(checkpoint)
    assert parts(state) == {"student.vit", "student.classifier", "matches.0"}
    alone = example.ViTForImageClassification.from_pretrained(tmp_path / "student").state_dict()
    assert alone.keys() == {name.removeprefix("student.") for name in state if name.startswith("student.")}
    assert all(torch.equal(alone[name], state[f"student.{name}"]) for name in alone)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_hf_trainer_accumulates_gradients_to_the_mean(tmp_path: Path) -> None:
    """The Trainer takes a loss of a model with ``**kwargs`` to be divided already, unless it is told."""
    example = load("hf_trainer")
    trained = []
    for accumulate in (1, 2):
        example.set_seed(0)
        student, images = example.vit(width=8, layers=1), torch.randn(32, 1, 8, 8)
        matches = [example.Match("vit.layernorm", "vit.layernorm", nn.MSELoss())]
        distiller = example.Distiller(student, example.vit(8, 1), matches, example={"pixel_values": images[:2]})
        arguments = example.TrainingArguments(
            tmp_path / str(accumulate),
            max_steps=2,
            per_device_train_batch_size=16 // accumulate,
            gradient_accumulation_steps=accumulate,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0,
            save_strategy="no",
            remove_unused_columns=False,
        )
        data = [{"pixel_values": image, "labels": i % 10} for i, image in enumerate(images)]
        before = student.classifier.weight.clone()
        example.DistillationTrainer(distiller, arguments, train_dataset=data).train()
        assert (student.classifier.weight - before).abs().max() > 1e-3
        trained.append(student.classifier.weight)
    assert torch.allclose(*trained, atol=1e-6)


def test_auto_weight_of_tokens_that_are_read_as_a_map() -> None:
    example = load("hf_trainer")
    example.set_seed(0)
    student, images = example.vit(width=8, layers=2), torch.randn(8, 1, 8, 8)
    patches = example.Layer("vit.layers.0", read=example.tokens_to_map(prefix=1))
    match = example.Match(patches, patches, example.ChannelTransform(), weight="auto")
    distiller = example.Distiller(student, example.vit(16, 2), [match], example={"pixel_values": images})
    for _ in range(12):
        out = distiller(pixel_values=images, labels=torch.arange(8))
        (out.output.loss + out.loss).backward()
    assert match.weight is not None
    assert match.weight > 0


def test_custom_criterion() -> None:
    example = load("custom_criterion")
    history = example.main()
    assert history[0].keys() == {"cosine_distance:output", "MSELoss:0"}
    assert all(history[-1][name] < 0.6 * history[0][name] for name in history[0])
    distance: Callable[[Tensor, Tensor], Tensor] = example.cosine_distance
    scores = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert distance(scores, 2 * scores).item() == pytest.approx(0, abs=1e-6)
    assert distance(scores, -scores).item() == pytest.approx(2)
