import torch

from limbeck.export.ties import FirstOfEqual


def test_topk_takes_the_first_of_equal_values_and_the_best_first():
    values = torch.tensor([[0.0, 2.0] + [1.0] * 500 + [3.0]])
    with FirstOfEqual():
        best, places = torch.topk(values, 6)
        least = values.topk(3, dim=1, largest=False)[1]
    assert best.tolist() == [[3.0, 2.0, 1.0, 1.0, 1.0, 1.0]]
    assert places.tolist() == [[502, 1, 2, 3, 4, 5]]
    assert least.tolist() == [[0, 2, 3]]
