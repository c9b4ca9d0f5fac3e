"""Reasons for missing sets of messages: each cause is recognized, and its remedy gives sets."""

import re
import types

import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from loftr_ros.config import SyncConfig
from loftr_ros.ros import compat, qos, silence
from loftr_ros.ros.compat.filters import SimpleFilter

pytestmark = pytest.mark.ros

MS = 1_000_000
TOPICS = ('/left', '/left_info', '/right', '/right_info')
START_NS = 1_700_000_000_000_000_000


def deliver(sync, offsets_ms=(0, 0, 0, 0), late=(0, 0, 0, 0), count=40, period_ms=100):
    """Feed four topics, `late` messages behind and with stamps moved by an offset; return guard and sets of stamps."""
    inputs = [SimpleFilter() for _ in TOPICS]
    sets = []
    slop = sync.approximate_sync_tolerance_seconds if sync.approximate_sync else None
    take = lambda *messages: sets.append([compat.filters.stamp_ns_of(m) for m in messages])  # noqa: E731
    guard = compat.make_synchronizer(inputs, sync.queue_size, take, slop=slop)
    for number in range(count):
        for source, offset_ms, behind in zip(inputs, offsets_ms, late, strict=True):
            if number >= behind:
                stamp_ns = START_NS + (number - behind) * period_ms * MS + round(offset_ms * MS)
                stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
                source.signalMessage(types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp)))
    return guard, sets


def follow(advice: str) -> SyncConfig:
    """Return the settings that an explanation names."""
    found = dict(re.findall(r'sync\.(\w+) to ([\w.]+)', advice))
    return SyncConfig(
        approximate_sync=found.get('approximate_sync') == 'true',
        approximate_sync_tolerance_seconds=float(found.get('approximate_sync_tolerance_seconds', 0.01)),
        queue_size=int(found.get('queue_size', 5)),
    )


@pytest.mark.parametrize('approximate', [False, True])
@pytest.mark.parametrize(
    'offsets_ms, late, words',
    [
        ((0, 0, 0, 0), (0, 0, 8, 0), 'sync.queue_size'),
        ((0, 0, 0, 0), (12, 0, 0, 0), 'sync.queue_size'),
        ((0, 0, 15, 15), (0, 0, 0, 0), 'approximate_sync_tolerance_seconds'),
        ((0, 0, -20, -20), (0, 0, 7, 0), 'approximate_sync_tolerance_seconds'),
    ],
)
def test_the_settings_that_are_named_make_sets_of_the_right_stamps(approximate, offsets_ms, late, words):
    sync = SyncConfig(approximate_sync=approximate)
    guard, sets = deliver(sync, offsets_ms, late)
    assert not sets
    advice = silence.explain_stamps(TOPICS, guard.arrivals, sync)
    assert words in advice
    changed = follow(advice)
    if approximate:
        changed = SyncConfig(True, changed.approximate_sync_tolerance_seconds, changed.queue_size)
    _, sets = deliver(changed, offsets_ms, late)
    assert len(sets) >= 40 - max(late) - 2
    for stamps in sets:
        moved = [stamp - round(offset * MS) for stamp, offset in zip(stamps, offsets_ms, strict=True)]
        assert len(set(moved)) == 1


def test_stamps_too_far_apart_for_any_setting_are_named_with_no_setting():
    sync = SyncConfig()
    guard, _ = deliver(sync, (0, 0, 45, 45))
    text = silence.explain_stamps(TOPICS, guard.arrivals, sync)
    assert 'no setting' in text and '0.045' in text and 'sync.' not in text
    guard, _ = deliver(sync, (0, 0, -1_699_999_000_000, -1_699_999_000_000))  # a clock that starts with the machine
    assert 'no setting' in silence.explain_stamps(TOPICS, guard.arrivals, sync)


def test_a_stamp_that_never_changes_is_named():
    arrivals = [[(i, START_NS + i) for i in range(5)], [(i, 0) for i in range(5)]]
    text = silence.explain_stamps(('/image', '/camera_info'), arrivals, SyncConfig())
    assert '/camera_info has the stamp 0.000' in text and 'driver' in text


def test_nothing_is_advised_where_the_settings_fit():
    guard, sets = deliver(SyncConfig())
    assert len(sets) == 40
    assert silence.explain_stamps(TOPICS, guard.arrivals, SyncConfig()) == ''


def test_a_tolerance_that_is_wide_for_the_frame_period_is_noticed_with_the_remedy():
    sync = SyncConfig(approximate_sync=True, approximate_sync_tolerance_seconds=0.5)
    guard, sets = deliver(sync, (0, 0, 45, 45), period_ms=100)
    texts = silence.explain_doubtful_set(TOPICS, sets[-1], guard.arrivals, sync)
    assert set(texts) == {'/right', '/right_info'}
    assert '0.100 s between two messages' in texts['/right']
    assert follow(texts['/right']).approximate_sync_tolerance_seconds == 0.04
    right = [START_NS, START_NS, START_NS + 39 * MS, START_NS + 39 * MS]
    assert not silence.explain_doubtful_set(TOPICS, right, guard.arrivals, sync)


def test_before_the_frame_period_is_known_no_set_is_doubtful():
    arrivals = [[(1, START_NS)] for _ in TOPICS]
    stamps = [START_NS, START_NS, START_NS + 400 * MS, START_NS + 400 * MS]
    assert silence.explain_doubtful_set(TOPICS, stamps, arrivals, SyncConfig(True, 0.5)) == {}


class Graph:
    """A node as far as `explain_graph` asks it: topics with (type, reliability) of their publishers."""

    def __init__(self, **publishers):
        self.publishers = {'/' + name.replace('__', '/'): own for name, own in publishers.items()}

    def get_publishers_info_by_topic(self, topic):
        return [
            types.SimpleNamespace(topic_type=kind, qos_profile=QoSProfile(depth=5, reliability=reliability))
            for kind, reliability in self.publishers.get(topic, ())
        ]

    def get_topic_names_and_types(self):
        return [(topic, [kind for kind, _ in own]) for topic, own in self.publishers.items()]

    def count_publishers(self, topic):
        return len(self.publishers.get(topic, ()))

    def get_fully_qualified_name(self):
        return '/matcher'


IMAGE, COMPRESSED, INFO = (f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo'))
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    'graph, words, without',
    [
        (Graph(), 'start the driver', 'remap'),
        (Graph(matcher__matches_image=[(IMAGE, RELIABLE)]), 'start the driver', 'remap'),
        (Graph(cam__image_raw=[(IMAGE, RELIABLE)]), 'topics of its type: /cam/image_raw; remap', 'QoS'),
        (Graph(image=[(INFO, RELIABLE)]), f'has the type {INFO}, needs {IMAGE}', 'remap'),
        (Graph(image__compressed=[(COMPRESSED, RELIABLE)]), 'set input.image_transport to compressed', 'remap'),
        (Graph(image=[(IMAGE, BEST_EFFORT)]), 'a QoS incompatible', 'nothing arrives'),
        (Graph(image=[(IMAGE, RELIABLE)]), 'has a publisher, but nothing arrives', 'QoS'),
    ],
)
def test_a_topic_without_messages_is_explained_by_the_graph(graph, words, without):
    wanted = QoSProfile(depth=5, reliability=RELIABLE)
    text = silence.explain_graph(graph, '/image', IMAGE, wanted)
    assert words in text and without not in text


def test_the_other_transport_is_named_where_only_raw_images_come():
    text = silence.explain_graph(Graph(image=[(IMAGE, RELIABLE)]), '/image/compressed', COMPRESSED, QoSProfile(depth=5))
    assert 'set input.image_transport to raw' in text


def test_simulated_time_that_does_not_run_is_noticed_on_a_steady_clock(monkeypatch):
    steady = [100.0]
    monkeypatch.setattr(silence.time, 'monotonic', lambda: steady[0])
    now = types.SimpleNamespace(nanoseconds=0)
    clock = types.SimpleNamespace(now=lambda: now, ros_time_is_active=True)
    watch = silence.ClockWatch(types.SimpleNamespace(get_clock=lambda: clock))
    assert watch.fault() == ''
    steady[0] += 6
    assert 'no message has arrived on /clock' in watch.fault()
    now.nanoseconds = 5 * 10**9
    assert watch.fault() == ''
    steady[0] += 6
    assert '/clock has stopped at 5.000 s' in watch.fault()
    clock.ros_time_is_active = False
    assert watch.fault() == ''


@pytest.mark.parametrize('name', ['SENSOR_DATA', 'SYSTEM_DEFAULT', 'DEFAULT', 'RELIABLE'])
def test_each_profile_is_new_so_that_an_override_of_one_topic_changes_no_other(name):
    first, second = qos.profile(name), qos.profile(name)
    assert first == second and first is not second
    first.depth = 77
    assert second.depth == qos.profile(name).depth != 77


def test_the_remedy_is_for_the_incompatible_policy():
    reliable, latched = {'reliability': RELIABLE}, {'durability': DurabilityPolicy.TRANSIENT_LOCAL}
    for wanted, words, without in (
        (reliable, 'set input.image_qos to SENSOR_DATA', 'durability'),
        (latched, 'set qos_overrides./image.subscription.durability to volatile', 'image_qos'),
    ):
        offered = QoSProfile(depth=5, reliability=RELIABLE if wanted is latched else BEST_EFFORT)
        subscription = QoSProfile(depth=5, **wanted)
        text = qos.misfit('/image', offered, subscription)
        assert words in text and without not in text
        cured = QoSProfile(depth=5, reliability=BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
        assert qos.misfit('/image', offered, cured) == ''
