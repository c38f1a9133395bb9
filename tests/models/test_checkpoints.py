import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.models.checkpoints import load_weights


def save(state, path):
    save_file(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_loaded_from_either_kind_of_file(tmp_path, suffix):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, path)
    else:
        save_file(source.state_dict(), path)
    assert load_weights(target, str(path)) == []
    assert torch.equal(target.weight, source.weight)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    path = save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"0 tensors missing, 2 tensors \(1.bias, 1.weight\) unexpected"):
        load_weights(nn.Sequential(nn.Linear(2, 3)), path)
    with pytest.raises(ValueError, match=r"2 tensors \(2.bias, 2.weight\) missing, 0 tensors unexpected"):
        load_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 4)), path)
    with pytest.raises(
        ValueError, match=r"\(1.bias \(4,\) for \(5,\), 1.weight \(4, 3\) for \(5, 3\)\) of another shape"
    ):
        load_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)), path)


def test_a_classifier_for_other_classes_is_left_out_where_that_is_asked_for(tmp_path):
    source, target = (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, classes)) for classes in (4, 5))
    path = save(source.state_dict(), tmp_path / "weights.safetensors")
    assert load_weights(target, path, new_head=True) == ["1.bias", "1.weight"]
    assert torch.equal(target[0].weight, source[0].weight)
    with pytest.raises(ValueError, match="of another shape"):  # two layers differ: that is no new head
        load_weights(nn.Sequential(nn.Linear(2, 7), nn.Linear(7, 5)), path, new_head=True)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Code()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth holds more than tensors.*refused"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "weights.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(nn.Linear(2, 3).state_dict(), path)
    else:
        save_file(nn.Linear(2, 3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=name):
        load_weights(nn.Linear(2, 3), str(path))
    with pytest.raises(ValueError, match="no weights at"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"no weights at pretrianed; did you mean pretrained\?"):
        load_weights(nn.Linear(2, 3), "pretrianed")


def test_published_weights_that_cannot_be_had_are_an_error():
    with pytest.raises(ValueError, match="nothing publishes weights"):
        load_weights(nn.Linear(2, 3), "pretrained", name="net.py:small")


@pytest.mark.parametrize(
    ("home", "error", "message"),
    [
        ("/home/me", ConnectionError("no route"), r"timm:resnet18 could not be downloaded \(no route\); connect, or"),
        ("/home/me", RuntimeError("no url"), r"no published weights of timm:resnet18 \(no url\); pass a file"),
        ("~", RuntimeError("no home"), r"weights of timm:resnet18 have no place.*set the variable HOME"),
    ],
)
def test_a_network_that_is_down_is_not_taken_for_weights_that_nobody_published(monkeypatch, home, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("timm.create_model", fail)
    monkeypatch.setattr("os.path.expanduser", lambda path: home)
    with pytest.raises(ValueError, match=message):
        load_weights(nn.Linear(2, 3), "pretrained", name="timm:resnet18")


JUNK = {
    "text.pth": (b"hello", r"text.pth is no file of torch.save \(it begins with b'hello'\)"),
    "junk.bin": (b"abc", r"junk.bin is no file of torch.save \(it begins with b'abc'\)"),
    "empty.pth": (b"", r"empty.pth is no file of torch.save \(it is empty\)"),
    "plain.pkl": (pickle.dumps({"a": 1}), r"plain.pkl is no file of torch.save .*safetensors.torch.save_file"),
}


@pytest.mark.parametrize("name", JUNK)
def test_a_file_that_torch_did_not_save_is_named_with_the_reason(tmp_path, name):
    content, message = JUNK[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_weights(nn.Linear(2, 3), str(tmp_path / name))


def test_a_damaged_file_of_the_form_before_archives_is_named(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(nn.Linear(2, 3).state_dict(), path, _use_new_zipfile_serialization=False)
    load_weights(nn.Linear(2, 3), str(path))
    path.write_bytes(path.read_bytes()[:40] + b"junk")
    with pytest.raises(ValueError, match=r"old.pth"):
        load_weights(nn.Linear(2, 3), str(path))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_compiled_and_parallel_models_are_left_out(tmp_path, prefix):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "weights.pth")
    load_weights(target, str(tmp_path / "weights.pth"))
    assert torch.equal(target.weight, source.weight)


def test_a_prefix_without_which_the_names_would_fit_is_named(tmp_path):
    state = nn.Linear(2, 3).state_dict()
    lightning = {f"model.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(3)}
    path = save(lightning, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"its names fit without 'model.': .*removeprefix\('model.'\)"):
        load_weights(nn.Linear(2, 3), path)
    path = save(state | {"model.bias": torch.ones(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="is it a file of this very model"):
        load_weights(nn.Linear(2, 3), path)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_tensors_are_found_where_trainings_keep_them(key, tmp_path):
    state = nn.Linear(2, 3).state_dict()
    torch.save({key: state, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "weights.pth")
    model = nn.Linear(2, 3)
    load_weights(model, str(tmp_path / "weights.pth"))
    assert torch.equal(model.weight, state["weight"])


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema"])
def test_weights_beside_their_average_are_refused(average, tmp_path):
    state = nn.Linear(2, 3).state_dict()
    torch.save({"model": state, average: state, "epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights.pth holds several models, model, {average}: load it, and save"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "weights.pth"))


def test_what_a_file_holds_instead_of_a_state_dict_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"network": nn.Linear(2, 3).state_dict(), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"weights.pth holds no state_dict.*under 'network', 'epoch'; save what"):
        load_weights(nn.Linear(2, 3), str(path))
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"weights.pth holds a list, no state_dict"):
        load_weights(nn.Linear(2, 3), str(path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_with_nan_are_refused_by_name(tmp_path, dtype):
    state = {"weight": torch.ones(3, 2), "bias": torch.tensor([0.0, torch.nan, 1.0], dtype=dtype)}
    with pytest.raises(ValueError, match=r"weights.safetensors holds nan in bias"):
        load_weights(nn.Linear(2, 3), save(state, tmp_path / "weights.safetensors"))
