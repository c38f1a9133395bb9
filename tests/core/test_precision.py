import torch

from limbeck.core.precision import as_convolutions

GPU = torch.device("cuda")  # named only
MATMUL = torch.backends.cuda.matmul


def test_products_on_a_gpu_have_the_precision_of_convolutions_for_a_while():
    before = MATMUL.fp32_precision
    with as_convolutions(GPU):
        assert MATMUL.fp32_precision == "tf32"
    assert MATMUL.fp32_precision == before
    assert not MATMUL.allow_tf32  # torch refuses to say where its two ways of setting contradict each other


def test_who_switches_it_off_for_convolutions_has_exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with as_convolutions(GPU):
        assert MATMUL.fp32_precision != "tf32"


def test_products_on_a_cpu_are_left_alone():
    with as_convolutions(torch.device("cpu")):
        assert MATMUL.fp32_precision != "tf32"
