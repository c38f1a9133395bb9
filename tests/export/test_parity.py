import pytest
import torch
from torch import nn

from limbeck.export.deployed import Deployed
from limbeck.export.parity import LARGEST, differences, in_order_of

IMAGES = [torch.rand(2, 3, 4, 4)]


class Queries(nn.Module):
    """Boxes and scores of thirty queries, the same for every image."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.outputs = (torch.rand(2, 30, 4, generator=generator) * 500, torch.rand(2, 30, 3, generator=generator))

    def forward(self, images):
        return self.outputs


def is_same(change, unordered=True):
    """Whether what ``change`` makes of copies of boxes and scores passes for them."""
    module = Queries()
    boxes, scores = (output.clone() for output in module.outputs)
    changed = dict(zip(("boxes", "scores"), change(boxes, scores), strict=True))
    deployed = Deployed(module, ("boxes", "scores"), lambda run, size: module, unordered=unordered)
    return all(found.relative <= LARGEST for found in differences(deployed, lambda images: changed, IMAGES))


def test_chosen_queries_may_come_in_any_order_and_others_not():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert is_same(lambda boxes, scores: (boxes[:, order], scores[:, order]))
    assert not is_same(lambda boxes, scores: (boxes[:, order], scores[:, order]), unordered=False)


@pytest.mark.parametrize("row", [0, 29])
def test_in_any_order_a_query_that_is_changed_missing_or_twice_is_found(row):
    def moved(boxes, scores):
        boxes[1, row, 2] += 1
        return boxes.flip(1), scores.flip(1)

    def twice(boxes, scores):
        boxes[0, row], scores[0, row] = boxes[0, 5], scores[0, 5]
        return boxes, scores

    def box_of_another(boxes, scores):
        return boxes, scores.index_copy(1, torch.tensor([row, 5]), scores[:, [5, row]])

    def not_a_number(boxes, scores):
        scores[0, row, 0] = torch.nan
        return boxes, scores

    for change in (moved, twice, box_of_another, not_a_number):
        assert not is_same(change)


def test_rows_are_paired_by_all_outputs_together():
    expected = {"boxes": torch.zeros(1, 2, 4), "scores": torch.tensor([[[0.1], [0.9]]])}
    given = {"boxes": torch.zeros(1, 2, 4), "scores": torch.tensor([[[0.9], [0.1]]])}
    assert in_order_of(expected, given)["scores"].tolist() == [[[pytest.approx(0.1)], [pytest.approx(0.9)]]]
