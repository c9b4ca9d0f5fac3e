"""The worker of a node: every set of messages is counted once, and changes are made between sets."""

import logging
import threading
import time
import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datatypes import Frame, FrameSet, Matches
from loftr_ros.errors import ConfigError, InputError, LoftrRosError
from loftr_ros.matchers import Matcher
from loftr_ros.ros import worker as module
from loftr_ros.ros.diagnostics import Statistics
from loftr_ros.ros.worker import Worker
from loftr_ros.settings import override

pytestmark = pytest.mark.ros

EVERY_FRAME = override(Config(), {'input.process_every_frame': True})


class FakeMatcher(Matcher):
    def __init__(self, name):
        self.name = name

    def extract(self, image):
        return image

    def match(self, features0, features1):
        return Matches.empty()


class FakeReader:
    """Makes a frame of an integer, its stamp [s]; an exception is raised."""

    depth_fault = ''

    def __init__(self, cam_from_depth=None):
        pass

    def read(self, message, rectified):
        if isinstance(message, Exception):
            raise message
        return FrameSet(Frame(np.zeros((8, 8), np.uint8), None, message * 1_000_000_000))


class Rig:
    """A worker with a fake matcher and reader, and what it published."""

    def __init__(self, monkeypatch, config=EVERY_FRAME):
        self.published = []
        self.gate = threading.Event()
        self.statistics = Statistics()
        monkeypatch.setattr(module, 'create_matcher', self.create)
        monkeypatch.setattr(module, 'FrameReader', FakeReader)
        logger = logging.getLogger('worker')
        quiet = types.SimpleNamespace(
            info=logger.debug, error=logger.debug, warning=lambda text, throttle_duration_sec=0: logger.debug(text)
        )
        self.worker = Worker(config, self.statistics, self.publish, quiet, lambda: True)

    def create(self, config):
        if config.name == 'bad':
            raise ConfigError('no such matcher')
        if config.name == 'slow':
            self.gate.wait()
        return FakeMatcher(config.name)

    def publish(self, result, matcher):
        self.published.append((result.id0, result.id1, matcher))
        return 0.0

    def run(self, sets):
        """Process until so many sets are processed or dropped, and end."""
        self.worker.start()
        deadline = time.monotonic() + 10
        while self.statistics.counts['processed'] + self.statistics.counts['dropped'] < sets:
            assert time.monotonic() < deadline, self.counts()
            time.sleep(0.001)
        self.worker.close()

    def counts(self):
        return {name: number for name, number in self.statistics.counts.items() if number}


def test_every_set_is_processed_dropped_or_superseded(monkeypatch):
    rig = Rig(monkeypatch)
    for message in (1, 2, InputError('bad image'), 3, 3, ValueError('a fault of ours'), 4):
        rig.worker.put(message)
    rig.run(7)
    rig.worker.put(5)
    assert rig.counts() == {'paired': 8, 'processed': 4, 'dropped': 3, 'superseded': 1}
    assert [pair[:2] for pair in rig.published] == [(0, 1), (0, 2), (0, 3)]
    assert 'a fault of ours' in rig.statistics.notes['last_drop']


def test_without_process_every_frame_the_newest_set_replaces_one_that_waits(monkeypatch):
    rig = Rig(monkeypatch, Config())
    for stamp_s in (1, 2, 3):
        rig.worker.put(stamp_s)
    assert rig.counts() == {'paired': 3, 'superseded': 2}


def test_a_restart_drops_what_waits_and_takes_older_stamps(monkeypatch):
    rig = Rig(monkeypatch)
    rig.worker.put(7)
    rig.worker.restart('the clock jumped')
    for stamp_s in (1, 2):
        rig.worker.put(stamp_s)
    rig.run(2)
    assert rig.counts() == {'paired': 3, 'superseded': 1, 'time_jumps': 1, 'processed': 2}


def test_another_matcher_starts_at_the_next_set_with_a_new_keyframe(monkeypatch):
    rig = Rig(monkeypatch)
    rig.worker.configure(override(EVERY_FRAME, {'matcher.name': 'other'}))
    for stamp_s in (1, 2):
        rig.worker.put(stamp_s)
    rig.run(2)
    assert rig.published == [(0, 1, 'other')]


def test_a_matcher_that_cannot_be_created_is_refused_and_nothing_changes(monkeypatch):
    rig = Rig(monkeypatch)
    with pytest.raises(ConfigError, match='no such matcher'):
        rig.worker.configure(override(EVERY_FRAME, {'matcher.name': 'bad'}))
    assert rig.worker.matcher_name == 'default'


def test_close_ends_the_wait_for_a_matcher(monkeypatch):
    rig = Rig(monkeypatch)
    failed = []

    def change():
        try:
            rig.worker.configure(override(EVERY_FRAME, {'matcher.name': 'slow'}))
        except Exception as error:
            failed.append(str(error))

    thread = threading.Thread(target=change)
    thread.start()
    rig.worker.close()
    thread.join(10)
    assert not thread.is_alive() and failed == ['the node was stopped before its new matcher was ready']
    rig.gate.set()


def test_a_pair_is_matched_without_any_set_of_messages(monkeypatch):
    rig = Rig(monkeypatch)
    rig.worker.start()
    frames = [Frame(np.zeros((8, 8), np.uint8), None, stamp) for stamp in (1, 2)]
    result = rig.worker.match_pair(*frames, None, (7, 9))
    assert (result.id0, result.id1, result.pose, len(result.matches)) == (7, 9, None, 0)
    rig.worker.close()
    with pytest.raises(LoftrRosError, match='stopped before the pair was matched'):
        rig.worker.match_pair(*frames, None, (7, 9))


def test_a_function_that_fails_does_not_end_the_worker(monkeypatch):
    rig = Rig(monkeypatch)
    rig.worker._mailbox.call(lambda: 1 / 0)
    for stamp_s in (1, 2):
        rig.worker.put(stamp_s)
    rig.run(2)
    assert len(rig.published) == 1


def test_with_pairing_odometry_motions_are_published(monkeypatch):
    rig = Rig(monkeypatch, override(EVERY_FRAME, {'input.pairing': 'odometry'}))
    motions = []
    rig.worker._publish = lambda motion, matcher: motions.append(motion) or 0.0
    camera = Camera([[8, 0, 4], [0, 8, 4], [0, 0, 1]], 8, 8)
    rig.worker._reader.read = lambda message, rectified: FrameSet(
        Frame(np.zeros((8, 8), np.uint8), camera, message * 1_000_000_000)
    )
    for stamp_s in (1, 2):
        rig.worker.put(stamp_s)
    rig.run(2)
    assert [motion.status.name for motion in motions] == ['STARTING', 'TOO_FEW']
    assert rig.counts() == {'paired': 2, 'processed': 2, 'failed_poses': 1}
