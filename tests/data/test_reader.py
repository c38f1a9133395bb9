import pytest
import torch
from torch.utils.data import DataLoader

from limbeck.data.reader import IN_A_ROW, Reader
from limbeck.data.workers import as_raised


class Numbers:
    """Samples 0, 1, ..., some of which cannot be read."""

    def __init__(self, on_bad, bad, length=20):
        self.on_bad, self.bad, self.length = on_bad, bad, length

    def read(self, index):
        if index in self.bad:
            raise ValueError(f"{index}.jpg cannot be read: two\nlines")
        return index

    def __len__(self):
        return self.length


class Data(torch.utils.data.Dataset):
    def __init__(self, numbers):
        self.reader = Reader(numbers)

    def __getitem__(self, index):
        return torch.tensor(self.reader(index))

    def __len__(self):
        return len(self.reader.samples)


def test_the_next_sample_stands_in_and_the_workers_failures_are_counted():
    data = Data(Numbers("skip", {3, 4, 19}))
    seen = torch.cat(list(DataLoader(data, 4, num_workers=2)))
    expected = [*range(3), 5, 5, *range(5, 19), 0]
    assert seen.tolist() == [[place, place] for place in expected]
    assert data.reader.notes() == [
        "could not read 3 of 20 samples, the next stood in; the first: 3.jpg cannot be read: two\nlines"
    ]
    data.reader.samples.bad = {}
    assert data.reader.notes()[0].endswith("the first: it can be read again")


def test_nothing_is_said_where_nothing_failed():
    assert Reader(Numbers("skip", {})).notes() == []


def test_an_unreadable_sample_is_an_error_where_none_may_be_left_out_or_too_many_follow():
    with pytest.raises(ValueError, match=r"^3\.jpg"):
        Reader(Numbers("error", {3}))(3)
    for bad in (set(range(20)), set(range(2, 2 + IN_A_ROW))):
        with pytest.raises(ValueError, match=r"\.jpg cannot be read"):
            Reader(Numbers("skip", bad))(2)


def test_an_error_of_a_worker_is_told_without_its_traceback():
    loader = DataLoader(Data(Numbers("error", {7})), 4, num_workers=1)
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker") as caught:
        list(loader)
    bare = as_raised(caught.value)
    assert type(bare) is ValueError
    assert str(bare) == "7.jpg cannot be read: two\nlines"
    assert as_raised(bare) is bare
