"""Explanations why no complete set of messages arrives, or why a set is doubtful: from the clock, graph and stamps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np

from loftr_ros.config import SyncConfig
from loftr_ros.ros import qos

SILENCE_S = 5.0
"""After this time without a complete set of messages the node explains what it is waiting for [s]."""

SPARE_MESSAGES = 2
"""Added to the queue size that the arrivals needed, because delays vary."""

MAX_SHARE_OF_PERIOD = 0.4
"""Stamps of one set may differ by this share of the frame period. If they differ more, partners are a guess."""

MIN_ARRIVALS = 5
"""Messages of each topic from which the frame period is measured."""

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'

Arrivals = Sequence[tuple[int, int]]
"""(number of the arrival among all topics, stamp [ns]) of the messages of one topic, in the order of arrival."""


class ClockWatch:
    """Detects, with a steady clock, that simulated time has stopped."""

    def __init__(self, node):
        self._clock = node.get_clock()
        self._last_ns = 0
        self._changed_s = time.monotonic()

    def fault(self) -> str:
        """Return what is wrong with /clock; empty while it runs and without use_sim_time. Must be called regularly."""
        now_ns, now_s = self._clock.now().nanoseconds, time.monotonic()
        if now_ns != self._last_ns or not self._clock.ros_time_is_active:
            self._last_ns, self._changed_s = now_ns, now_s
            return ''
        if now_s - self._changed_s < SILENCE_S:
            return ''
        if now_ns == 0:
            return (
                'use_sim_time is true and no message has arrived on /clock: start the player with --clock, or set '
                'use_sim_time to false'
            )
        return f'/clock has stopped at {now_ns / 1e9:.3f} s: is the player paused, or has it ended?'


def explain_graph(node, topic: str, message_type: str, profile) -> str:
    """Return why no messages arrive on a topic, from what the ROS graph knows about its publishers.

    Args:
        message_type: as `sensor_msgs/msg/Image`.
        profile: QoS of the subscription.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    types = {publisher.topic_type for publisher in publishers}
    if message_type in types:
        misfits = [qos.misfit(topic, p.qos_profile, profile) for p in publishers if p.topic_type == message_type]
        if all(misfits):
            return f'{topic} has a publisher with a QoS incompatible with this subscription: {misfits[0]}'
        return (
            f'{topic} has a publisher, but nothing arrives from it: check that it sends (ros2 topic hz {topic}), and '
            'on a network that large messages arrive'
        )
    known = {name: found for name, found in node.get_topic_names_and_types() if node.count_publishers(name)}
    transport = _other_transport(topic, message_type, known)
    if publishers:
        return f'{topic} has the type {", ".join(sorted(types))}, needs {message_type}{transport}'
    own = node.get_fully_qualified_name() + '/'
    same_type = [name for name in sorted(known) if message_type in known[name] and not name.startswith(own)]
    if transport:
        return f'nobody publishes {topic}{transport}'
    if same_type:
        return f'nobody publishes {topic}; topics of its type: {", ".join(same_type[:6])}; remap it to one of them'
    return (
        f'nobody publishes {topic}, nor any other topic of the type {message_type}: start the driver or the bag, and '
        'check that ROS_DOMAIN_ID is the same'
    )


def _other_transport(topic: str, message_type: str, known: dict) -> str:
    is_depth = 'depth' in topic.lower()
    suffix, parameter = ('/compressedDepth', 'depth_transport') if is_depth else ('/compressed', 'image_transport')
    raw = topic.removesuffix(suffix)
    if message_type == COMPRESSED and RAW in known.get(raw, ()):
        return f', but {raw} is published: set input.{parameter} to raw'
    if message_type == RAW and COMPRESSED in known.get(topic + suffix, ()):
        return f', but {topic}{suffix} is published: set input.{parameter} to compressed'
    if message_type == RAW and raw != topic and COMPRESSED in known.get(topic, ()):
        return f': name the topic {raw} and set input.{parameter} to compressed'
    return ''


def explain_stamps(topics: Sequence[str], arrivals: Sequence[Arrivals], sync: SyncConfig) -> str:
    """Return why messages that arrive on every topic form no sets, and which settings of `sync` pair them correctly.

    A setting is named only if the recorded arrivals would have formed sets with it. Empty if the present settings
    would have formed sets.
    """
    for topic, own in zip(topics, arrivals, strict=True):
        stamps = {stamp for _, stamp in own}
        if len(own) > 2 and len(stamps) == 1:
            return (
                f'every message on {topic} has the stamp {next(iter(stamps)) / 1e9:.3f} s: its driver must set '
                'header.stamp; no setting helps'
            )
    equal = set.intersection(*({stamp for _, stamp in own} for own in arrivals))
    if equal:
        needed = max(_queue_needed(arrivals, [stamp] * len(arrivals)) for stamp in sorted(equal)[-20:])
        if needed <= sync.queue_size:
            return ''
        late = _latest_topic(topics, arrivals)
        return (
            f'messages of equal stamps arrive up to {needed - 1} messages apart, those of {late} last: set '
            f'sync.queue_size to {needed + SPARE_MESSAGES} (now {sync.queue_size})'
        )
    sets = _nearest_sets(arrivals)
    spread_s = max((max(stamps) - min(stamps) for stamps in sets), default=0) / 1e9
    period_s = min(_period_ns(own) for own in arrivals) / 1e9
    first, last = _widest_pair(topics, sets)
    if spread_s > MAX_SHARE_OF_PERIOD * period_s:
        return (
            f'the stamps of {first} and {last} differ by up to {spread_s:.3f} s, with {period_s:.3f} s between two '
            'messages: no setting pairs them correctly; synchronise the clocks or triggers of the drivers'
        )
    tolerance_s = math.ceil(1.2e3 * spread_s) / 1e3
    advice = [f'sync.approximate_sync_tolerance_seconds to {tolerance_s:g}']
    if not sync.approximate_sync:
        advice.insert(0, 'sync.approximate_sync to true')
    needed = max(_queue_needed(arrivals, stamps) for stamps in sets[-20:])
    if needed > sync.queue_size:
        advice.append(f'sync.queue_size to {needed + SPARE_MESSAGES}')
    if sync.approximate_sync and tolerance_s <= sync.approximate_sync_tolerance_seconds:
        advice = advice[1:]
    if not advice:
        return ''
    return f'the stamps of {first} and {last} differ by up to {spread_s:.4f} s: set {", ".join(advice)}'


def explain_doubtful_set(
    topics: Sequence[str], stamps_ns: Sequence[int], arrivals: Sequence[Arrivals], sync: SyncConfig
) -> dict[str, str]:
    """Return a warning for each topic whose stamp in a complete set is far from that of the first topic.

    A tolerance that is large relative to the frame period can pair images of different times.

    Args:
        stamps_ns: stamps of the messages of the set [ns], one for each topic.
        arrivals: of each topic; the frame period is measured on them.
    """
    if max(stamps_ns) == min(stamps_ns):
        return {}
    period_ns = min(_period_ns(own) if len(own) > MIN_ARRIVALS else math.inf for own in arrivals)
    limit_ns = MAX_SHARE_OF_PERIOD * period_ns
    return {
        topic: (
            f'the stamps of {topics[0]} and {topic} in one set differ by {abs(stamp_ns - stamps_ns[0]) / 1e9:.3f} s, '
            f'with {period_ns / 1e9:.3f} s between two messages: they may belong to different frames. Set '
            f'sync.approximate_sync_tolerance_seconds to {math.floor(limit_ns / 1e6) / 1e3:g} (now '
            f'{sync.approximate_sync_tolerance_seconds:g}); if no sets are formed then, synchronise the clocks or '
            'triggers of the drivers'
        )
        for topic, stamp_ns in zip(topics, stamps_ns, strict=True)
        if abs(stamp_ns - stamps_ns[0]) > limit_ns
    }


def _queue_needed(arrivals: Sequence[Arrivals], stamps: Sequence[int]) -> int:
    """Return how many messages a topic must keep so that those of `stamps` are all there when the last one arrives."""
    orders = [max(order for order, s in own if s == stamp) for own, stamp in zip(arrivals, stamps, strict=True)]
    complete = max(orders)
    return max(
        sum(order <= number <= complete for number, _ in own) for own, order in zip(arrivals, orders, strict=True)
    )


def _latest_topic(topics: Sequence[str], arrivals: Sequence[Arrivals]) -> str:
    """Return the topic whose newest stamp is the oldest."""
    return min(zip(topics, arrivals, strict=True), key=lambda item: max(stamp for _, stamp in item[1]))[0]


def _nearest_sets(arrivals: Sequence[Arrivals]) -> list[tuple[int, ...]]:
    """Return, for each message of the topic with the fewest, the nearest stamp of each topic.

    Only the time that all topics cover is used: outside it, the partner has not arrived yet or is no longer recorded.
    """
    stamps = [np.array(sorted({stamp for _, stamp in own})) for own in arrivals]
    low, high = max(own[0] for own in stamps), min(own[-1] for own in stamps)
    fewest = min(stamps, key=len)
    inside = fewest[(fewest >= low) & (fewest <= high)]
    if not len(inside):
        inside = fewest[-1:]
    return [tuple(int(own[np.argmin(np.abs(own - stamp))]) for own in stamps) for stamp in inside]


def _period_ns(arrivals: Arrivals) -> float:
    stamps = sorted({stamp for _, stamp in arrivals})
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else math.inf


def _widest_pair(topics: Sequence[str], sets: Sequence[tuple[int, ...]]) -> tuple[str, str]:
    """Return the two topics whose stamps differ most."""
    pairs = itertools.combinations(range(len(topics)), 2)
    first, last = max(pairs, key=lambda pair: max(abs(stamps[pair[0]] - stamps[pair[1]]) for stamps in sets))
    return topics[first], topics[last]
