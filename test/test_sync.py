"""Sets of stamped messages."""

from loftr_ros.sync import StampSync


def test_a_set_needs_a_message_of_every_topic_with_the_same_stamp():
    sync = StampSync(3, 10)
    assert sync.add(5, 'a', 0) is None
    assert sync.add(6, 'b', 1) is None
    assert sync.add(5, 'c', 2) is None
    assert sync.add(5, 'd', 1) == ['a', 'd', 'c']
    assert [list(queue.values()) for queue in sync.queues] == [[], ['b'], []]


def test_all_members_of_a_set_are_within_the_tolerance_of_each_other():
    sync = StampSync(3, 10, slop_ns=10)
    assert sync.add(0, 'a', 0) is None
    assert sync.add(12, 'b', 1) is None
    assert sync.add(6, 'c', 2) is None, '0 and 12 differ by more than 10'
    assert sync.add(8, 'd', 0) == ['d', 'b', 'c']


def test_the_nearest_partner_is_taken():
    sync = StampSync(2, 10, slop_ns=10)
    for stamp in (0, 4, 9):
        sync.add(stamp, stamp, 0)
    assert sync.add(5, 'new', 1) == [4, 'new']


def test_a_full_queue_drops_what_arrived_first():
    sync = StampSync(2, 2)
    for stamp in (100, 1, 2):  # a bag that starts again
        sync.add(stamp, stamp, 0)
    assert list(sync.queues[0]) == [1, 2]
    assert sync.add(2, 'b', 1) == [2, 'b']
