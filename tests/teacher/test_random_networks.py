from collections import Counter

import pytest

from tests.teacher.random_networks import compare


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_prepared_random_networks_differ_from_the_plain_ones_in_no_channel(first):
    total = Counter()
    for seed in range(first, first + 20):
        total.update(compare(seed))
    assert total["differ"] == 0
    assert total["folded"] >= 10
    assert total["folded"] < total["norms"]
