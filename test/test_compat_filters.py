"""The replacement of message_filters: filters and synchronizers."""

import threading
import types

import pytest

from loftr_ros.ros.compat.filters import ApproximateTimeSynchronizer, SimpleFilter, Subscriber, TimeSynchronizer

try:  # message_filters takes nothing else
    from builtin_interfaces.msg import Time
except ImportError:
    Time = types.SimpleNamespace

try:
    import message_filters
except ImportError:
    message_filters = None

MS = 1_000_000


def stamped(stamp_ms, name=''):
    seconds, nanoseconds = divmod(round(stamp_ms * MS), 1000 * MS)
    stamp = Time(sec=seconds, nanosec=nanoseconds)
    return types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp), ms=stamp_ms, name=name)


class Inputs(list):
    """Filters that a test feeds, and the sets that come out."""

    def __init__(self, number):
        super().__init__(SimpleFilter() for _ in range(number))
        self.sets = []

    def feed(self, *stamps_ms):
        """Hand one message to each filter, None to pass one over."""
        for index, stamp_ms in enumerate(stamps_ms):
            if stamp_ms is not None:
                self[index].signalMessage(stamped(stamp_ms))

    def take(self, *messages):
        self.sets.append(tuple(message.ms for message in messages))


def exact(inputs, queue_size=5):
    return TimeSynchronizer(inputs, queue_size)


def approximate(slop):
    return lambda inputs, queue_size=5: ApproximateTimeSynchronizer(inputs, queue_size, slop)


ALL = pytest.mark.parametrize(
    'create', [exact, approximate(0.0), approximate(0.02)], ids=['exact', 'slop 0', 'slop 20 ms']
)


# SimpleFilter, Subscriber


def test_callbacks_come_in_order_with_their_own_arguments():
    source, calls = SimpleFilter(), []
    assert source.registerCallback(lambda *a: calls.append(('first', *a))) == 0
    assert source.registerCallback(lambda *a: calls.append(('second', *a)), 'x', 2) == 1
    source.signalMessage('m', 'n')
    assert calls == [('first', 'm', 'n'), ('second', 'm', 'n', 'x', 2)]


class FakeNode:
    def create_subscription(self, msg_type, topic, callback, qos_profile, **kwargs):
        self.arguments = (msg_type, topic, qos_profile, kwargs)
        self.callback = callback
        return types.SimpleNamespace(topic_name=f'/{topic}')


def test_a_subscriber_passes_messages_and_arguments_on():
    node, heard = FakeNode(), []
    subscriber = Subscriber(node, int, 'image', qos_profile='best effort', callback_group='group')
    subscriber.registerCallback(heard.append)
    node.callback(7)
    assert heard == [7]
    assert node.arguments == (int, 'image', 'best effort', {'callback_group': 'group'})
    assert subscriber.sub.topic_name == '/image'


def test_a_subscriber_has_a_depth_of_ten_by_default():
    node = FakeNode()
    Subscriber(node, int, 'image')
    assert node.arguments[2] == 10


def test_a_message_without_a_stamp_is_dropped_with_a_warning(caplog):
    inputs = Inputs(1)
    TimeSynchronizer(inputs, 3).registerCallback(inputs.take)
    inputs[0].signalMessage(types.SimpleNamespace(data=1))
    assert inputs.sets == []
    assert 'dropped a SimpleNamespace without header.stamp' in caplog.text


# Synchronizers


@ALL
def test_equal_stamps_are_delivered_once(create):
    inputs = Inputs(2)
    create(inputs).registerCallback(inputs.take)
    for stamp_ms in range(0, 1900, 100):
        inputs.feed(stamp_ms, stamp_ms)
    assert inputs.sets == [(ms, ms) for ms in range(0, 1900, 100)]


@ALL
def test_sets_of_four_topics_complete_in_any_order_of_arrival(create):
    inputs = Inputs(4)
    create(inputs).registerCallback(inputs.take)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        start = 100 * len(inputs.sets)
        for index in order:
            inputs[index].signalMessage(stamped(start))
    assert inputs.sets == [(ms,) * 4 for ms in (0, 100, 200)]


@ALL
def test_a_callback_gets_its_own_arguments_after_the_messages(create):
    inputs, calls = Inputs(2), []
    create(inputs).registerCallback(lambda a, b, extra: calls.append((a.ms, b.ms, extra)), 'more')
    inputs.feed(1, 1)
    assert calls == [(1, 1, 'more')]


def test_exact_pairs_nothing_that_differs_by_a_nanosecond():
    inputs = Inputs(2)
    TimeSynchronizer(inputs, 5).registerCallback(inputs.take)
    inputs.feed(10, 10 + 1e-6)
    assert inputs.sets == []


@pytest.mark.parametrize(('offset_ms', 'pairs'), [(20, 1), (-20, 1), (20 + 1e-6, 0), (0, 1)])
def test_an_offset_of_exactly_slop_pairs_and_a_nanosecond_more_does_not(offset_ms, pairs):
    inputs = Inputs(2)
    ApproximateTimeSynchronizer(inputs, 5, 0.02).registerCallback(inputs.take)
    inputs.feed(100, 100 + offset_ms)
    assert len(inputs.sets) == pairs


def test_approximate_takes_the_nearest_partner_and_leaves_the_other():
    inputs = Inputs(2)
    sync = ApproximateTimeSynchronizer(inputs, 5, 0.02)
    sync.registerCallback(inputs.take)
    inputs.feed(85)
    inputs.feed(103)
    inputs.feed(None, 100)
    assert inputs.sets == [(103, 100)]
    assert [m.ms for m in sync.queues[0].values()] == [85]


def test_all_members_of_a_set_lie_within_slop_of_each_other():
    inputs = Inputs(3)
    ApproximateTimeSynchronizer(inputs, 5, 0.02).registerCallback(inputs.take)
    inputs.feed(85, 115, 100)  # each within 20 ms of the last, the outer two 30 ms apart
    assert inputs.sets == []
    inputs.feed(100)
    assert inputs.sets == [(100, 115, 100)]


@ALL
def test_an_exception_in_a_callback_does_not_stop_later_sets(create):
    inputs = Inputs(2)

    def fail_once(*messages):
        inputs.take(*messages)
        if len(inputs.sets) == 1:
            raise RuntimeError('first set')

    sync = create(inputs)
    sync.registerCallback(fail_once)
    with pytest.raises(RuntimeError, match='first set'):
        inputs.feed(0, 0)
    assert not sync.lock.locked()
    inputs.feed(100, 100)
    assert inputs.sets == [(0, 0), (100, 100)]


@ALL
def test_the_lock_is_free_while_a_callback_runs(create):
    inputs, locked = Inputs(2), []
    sync = create(inputs)
    sync.registerCallback(lambda *_: locked.append(sync.lock.locked()))
    inputs.feed(0, 0)
    assert locked == [False]


@ALL
def test_a_callback_may_feed_the_synchronizer_again(create):
    inputs = Inputs(2)

    def feed_next(*messages):
        inputs.take(*messages)
        if len(inputs.sets) < 3:
            inputs.feed(*[100 * len(inputs.sets)] * 2)

    create(inputs).registerCallback(feed_next)
    inputs.feed(0, 0)
    assert inputs.sets == [(0, 0), (100, 100), (200, 200)]


@ALL
def test_a_looping_bag_gives_sets_again_at_once(create):
    """The last messages of the first topic find no partner, fill its queue, and are in the future of the next loop."""
    inputs = Inputs(2)
    create(inputs, 5).registerCallback(inputs.take)
    for _loop in range(3):
        for stamp_ms in range(1000, 3000, 100):
            inputs.feed(stamp_ms, stamp_ms if stamp_ms < 2400 else None)
    assert inputs.sets == [(ms, ms) for ms in range(1000, 2400, 100)] * 3


@ALL
def test_a_topic_that_jumps_first_keeps_its_new_messages(create):
    inputs = Inputs(2)
    create(inputs).registerCallback(inputs.take)
    inputs.feed(5000, 5000)
    inputs.feed(0)
    inputs.feed(33)
    inputs.feed(66)
    inputs.feed(None, 0)
    inputs.feed(None, 33)
    inputs.feed(None, 66)
    assert inputs.sets == [(5000, 5000), (0, 0), (33, 33), (66, 66)]


@ALL
def test_a_late_message_is_no_jump(create):
    inputs = Inputs(2)
    create(inputs).registerCallback(inputs.take)
    inputs.feed(133)
    inputs.feed(100)
    inputs.feed(None, 100)
    inputs.feed(None, 133)
    assert inputs.sets == [(100, 100), (133, 133)]


@ALL
def test_a_full_queue_loses_the_message_that_came_first_and_not_the_smallest_stamp(create):
    inputs = Inputs(2)
    sync = create(inputs, 2)
    sync.registerCallback(inputs.take)
    for stamp_ms in (30, 90, 0):  # back by too little to count as a jump
        inputs.feed(stamp_ms)
    assert [m.ms for m in sync.queues[0].values()] == [90, 0]
    inputs.feed(None, 0)
    assert inputs.sets == [(0, 0)]


@ALL
def test_a_second_message_of_a_stamp_replaces_the_first(create):
    inputs, names = Inputs(2), []
    create(inputs).registerCallback(lambda a, _b: names.append(a.name))
    inputs[0].signalMessage(stamped(10, 'old'))
    inputs[0].signalMessage(stamped(10, 'new'))
    inputs.feed(None, 10)
    assert names == ['new']


def test_threads_that_feed_at_once_lose_no_set():
    inputs = Inputs(2)
    TimeSynchronizer(inputs, 1000).registerCallback(inputs.take)
    threads = [threading.Thread(target=lambda f=f: [f.signalMessage(stamped(ms)) for ms in range(500)]) for f in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(inputs.sets) == [(ms, ms) for ms in range(500)]
