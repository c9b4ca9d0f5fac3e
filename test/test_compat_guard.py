"""The guard that makes either implementation of message_filters safe for a node."""

import threading
import time
import types

import pytest

from loftr_ros.ros import compat
from loftr_ros.ros.compat import filters
from loftr_ros.ros.compat.filters import SimpleFilter

try:  # message_filters takes nothing else
    from builtin_interfaces.msg import Time
except ImportError:
    Time = types.SimpleNamespace

try:
    import message_filters
except ImportError:
    message_filters = None
from test_compat_filters import MS, Inputs


class StrictSynchronizer(SimpleFilter):
    """A double with the traps of ros2/message_filters: strict slop, callback under the lock, smallest stamp goes."""

    def __init__(self, fs, queue_size, slop=None):
        super().__init__()
        self.queues = [{} for _ in fs]
        self.queue_size = queue_size
        # As rclpy's Duration, which cuts the fraction of a nanosecond off.
        self.slop_ns = 1 if slop is None else int(slop * 1e9)
        self.lock = threading.Lock()
        for index, f in enumerate(fs):
            f.registerCallback(self.add, index)

    def add(self, msg, index):
        if not self.lock.acquire(timeout=1):
            raise AssertionError('the lock was left behind')
        stamp_ns = filters.stamp_ns_of(msg)
        self.queues[index][stamp_ns] = msg
        while len(self.queues[index]) > self.queue_size:
            del self.queues[index][min(self.queues[index])]
        keys = [next((k for k in q if abs(k - stamp_ns) < self.slop_ns), None) for q in self.queues]
        if None not in keys:
            self.signalMessage(*(q[k] for q, k in zip(self.queues, keys, strict=True)))
            for q, k in zip(self.queues, keys, strict=True):
                del q[k]
        self.lock.release()


STRICT = types.SimpleNamespace(TimeSynchronizer=StrictSynchronizer, ApproximateTimeSynchronizer=StrictSynchronizer)
MODULES = {'stand-in': filters, 'double of upstream': STRICT}
if message_filters is not None:
    MODULES['upstream'] = message_filters
EITHER = pytest.mark.parametrize('module', MODULES.values(), ids=MODULES)


# The guard, over the stand-in and over a double with upstream's traps


@EITHER
@pytest.mark.parametrize(('slop', 'offset_ms'), [(None, 0), (0.0, 0), (0.02, 20), (0.1, 100), (0.003, 3)])
def test_guarded_pairs_stamps_at_the_limit_of_slop(module, slop, offset_ms):
    inputs = Inputs(2)
    compat.make_synchronizer(inputs, 5, inputs.take, slop=slop, module=module)
    inputs.feed(1000, 1000 + offset_ms)
    inputs.feed(2000, 2000 + offset_ms + 1e-6)
    assert inputs.sets == [(1000, 1000 + offset_ms)]


@EITHER
def test_guarded_continues_after_an_exception_and_reports_it(module):
    inputs, errors = Inputs(2), []

    def fail(*messages):
        inputs.take(*messages)
        raise RuntimeError('bad frame')

    guard = compat.make_synchronizer(inputs, 5, fail, module=module, on_error=errors.append)
    inputs.feed(0, 0)
    inputs.feed(100, 100)
    assert inputs.sets == [(0, 0), (100, 100)]
    assert [str(error) for error in errors] == ['bad frame'] * 2
    assert (guard.paired, guard.failed) == (2, 2)


@EITHER
def test_guarded_logs_an_exception_without_an_error_callback(module, caplog):
    inputs = Inputs(2)
    compat.make_synchronizer(inputs, 5, lambda *_: 1 / 0, module=module)
    inputs.feed(0, 0)
    assert 'ZeroDivisionError' in caplog.text


@EITHER
def test_guarded_gives_sets_again_at_once_when_a_bag_loops(module):
    inputs = Inputs(2)
    guard = compat.make_synchronizer(inputs, 5, inputs.take, module=module)
    for _loop in range(3):
        for stamp_ms in range(1000, 3000, 100):
            inputs.feed(stamp_ms, stamp_ms if stamp_ms < 2400 else None)
    # The first message of a loop might be a late one, for which upstream's full queue has no place.
    first = [[(1000, 1000)], *[[(1000, 1000)] if module is filters else []] * 2]
    rest = [(ms, ms) for ms in range(1100, 2400, 100)]
    assert inputs.sets == [stamps for own in first for stamps in own + rest]
    assert guard.jumps == 2


@EITHER
def test_guarded_pairs_no_stale_messages_after_a_loop(module):
    inputs = Inputs(2)
    guard = compat.make_synchronizer(inputs, 5, inputs.take, module=module)
    inputs.feed(2000)
    inputs.feed(1000, 1000)
    inputs.feed(1100, 1100)
    inputs.feed(None, 2000)
    assert inputs.sets == [(1000, 1000), (1100, 1100)]
    assert guard.jumps == 1


@EITHER
@pytest.mark.parametrize('late_ms', [300, 900])
def test_guarded_keeps_waiting_messages_when_one_message_is_late(module, late_ms):
    inputs = Inputs(2)
    guard = compat.make_synchronizer(inputs, 5, inputs.take, module=module)
    for stamp_ms in (3000, 3100, 3200):
        inputs.feed(stamp_ms, None)
    inputs.feed(3200 - late_ms, None)
    for stamp_ms in (3000, 3100, 3200, 3300):
        inputs.feed(stamp_ms if stamp_ms == 3300 else None, stamp_ms)
    assert inputs.sets == [(ms, ms) for ms in (3000, 3100, 3200, 3300)]
    assert guard.jumps == 0


@EITHER
def test_guarded_counts_received_paired_and_lost_messages(module):
    inputs = Inputs(2)
    guard = compat.make_synchronizer(inputs, 2, inputs.take, module=module)
    for stamp_ms in range(0, 1000, 100):
        inputs.feed(stamp_ms, stamp_ms if stamp_ms < 300 else None)
    assert guard.received == [10, 3]
    assert guard.paired == 3
    assert guard.dropped == [5, 0]  # of the 7 without partner, 2 still wait


@EITHER
def test_reset_drops_waiting_messages(module):
    inputs = Inputs(2)
    guard = compat.make_synchronizer(inputs, 5, inputs.take, module=module)
    inputs.feed(0)
    guard.reset()
    inputs.feed(None, 0)
    inputs.feed(50, 50)
    assert inputs.sets == [(50, 50)]
    assert guard.jumps == 0


@EITHER
def test_reset_from_inside_the_callback_does_not_deadlock(module):
    inputs = Inputs(2)

    def take_and_reset(*messages):
        inputs.take(*messages)
        guard.reset()

    guard = compat.make_synchronizer(inputs, 5, take_and_reset, module=module)
    worker = threading.Thread(target=lambda: [inputs.feed(ms, ms) for ms in (0, 100)], daemon=True)
    worker.start()
    worker.join(5)
    assert not worker.is_alive()
    assert inputs.sets == [(0, 0), (100, 100)]


# Over DDS


@pytest.mark.ros
def test_stamped_pictures_and_infos_pair_over_dds(monkeypatch):
    rclpy = pytest.importorskip('rclpy', reason='rclpy is not installed')
    sensor_msgs = pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data

    from loftr_ros.ros.live_run import isolate

    for name, value in isolate().items():
        if name.startswith(('ROS_', 'FASTDDS_')):
            monkeypatch.setenv(name, value)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('filters_test', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        types_and_topics = [(sensor_msgs.Image, 'image'), (sensor_msgs.CameraInfo, 'camera_info')]
        subscribers = [compat.Subscriber(node, t, n, qos_profile=qos_profile_sensor_data) for t, n in types_and_topics]
        sets = []
        guard = compat.make_synchronizer(subscribers, 5, lambda a, b: sets.append((a.header.stamp.nanosec, b.width)))
        publishers = [node.create_publisher(t, n, 10) for t, n in types_and_topics]

        def spin_until(done):
            deadline = time.monotonic() + 20
            while not done() and time.monotonic() < deadline:
                executor.spin_once(timeout_sec=0.05)

        spin_until(lambda: all(p.get_subscription_count() == 1 for p in publishers))
        for number in range(5):
            image, info = sensor_msgs.Image(), sensor_msgs.CameraInfo(width=number)
            image.header.stamp.nanosec = info.header.stamp.nanosec = number * 33 * MS
            publishers[0].publish(image)
            publishers[1].publish(info)
            spin_until(lambda expected=number + 1: len(sets) == expected)
        assert sets == [(number * 33 * MS, number) for number in range(5)]
        assert guard.received == [5, 5]
        assert guard.dropped == [0, 0]
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
