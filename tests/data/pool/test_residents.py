import numpy as np

from napari_affmae.data.pool.blocks import Block
from napari_affmae.data.pool.residents import Residents

LIMITS = np.arange(8, dtype=np.float32).reshape(2, 4)


def insert(residents, arrival):
    block = Block(
        number=10 * arrival,
        source=1,
        plane=2,
        rows=slice(5, 25),
        columns=slice(0, 3 + arrival),
        starts=(4, 6),
        weight=float(arrival),
    )
    residents.insert(arrival, block, 100 + arrival, 200 + arrival, LIMITS)


def numbers(residents):
    return residents.rows["arrival"].tolist()


def test_an_entry_says_what_lies_where():
    residents = Residents(2)
    insert(residents, 7)
    (row,) = residents.rows
    expected = {"block": 70, "source": 1, "plane": 2, "offset": 107, "label_offset": 207}
    assert {name: int(row[name]) for name in expected} == expected
    assert row["corner"].tolist() == [5, 0]
    assert row["size"].tolist() == [20, 10]
    assert row["starts"].tolist() == [4, 6]
    np.testing.assert_array_equal(row["limits"], LIMITS)


def test_the_oldest_leave_first_however_many_came():
    residents = Residents(2)
    for arrival in range(1000):
        insert(residents, arrival)
        residents.drop_before(arrival - 100)
    assert numbers(residents) == list(range(899, 1000))
    assert len(residents) == 101
    assert residents.pixels == sum(20 * (3 + arrival) for arrival in range(899, 1000))
    residents.drop_before(5000)
    assert (len(residents), residents.pixels) == (0, 0)


def test_a_block_before_its_turn_does_not_hide_older_ones():
    residents = Residents(2)
    for arrival in (0, 1, 5, 2, 3, 4, 6):
        insert(residents, arrival)
        assert numbers(residents) == sorted(numbers(residents))
    residents.drop_before(4)
    assert numbers(residents) == [4, 5, 6]
    assert residents.rows["block"].tolist() == [40, 50, 60]


def test_sums_of_weights_follow_every_change():
    residents = Residents(2)
    insert(residents, 1)
    insert(residents, 3)
    assert residents.weight_ends.tolist() == [1, 4]
    assert residents.weight_ends is residents.weight_ends
    insert(residents, 2)
    assert residents.weight_ends.tolist() == [1, 3, 6]
    residents.drop_before(2)
    assert residents.weight_ends.tolist() == [2, 5]
