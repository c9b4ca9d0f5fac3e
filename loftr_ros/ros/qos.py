"""Quality of service by name, and the words for a mismatch."""

from __future__ import annotations

import copy

from rclpy.qos import (
    QoSCompatibility,
    QoSPresetProfiles,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # its name up to Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ['REMEDY', 'SubscriptionEventCallbacks', 'is_compatible', 'mismatch', 'overridable', 'profile']

REMEDY = 'set input.image_qos to SENSOR_DATA, or make the publisher reliable'


def profile(name: str) -> QoSProfile:
    """Return the profile of an `input.image_qos` value, a new one each time."""
    if name == 'RELIABLE':
        # Deep, since who asks for reliability replays: a busy process may not read for a second or two.
        return QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
    return copy.copy(QoSPresetProfiles[name].value)  # rclpy writes overrides into the profile that it is given


def overridable() -> QoSOverridingOptions:
    """Return what lets a user set `qos_overrides.<topic>.subscription.reliability` and the like as parameters."""
    kinds = QoSPolicyKind
    return QoSOverridingOptions([kinds.HISTORY, kinds.DEPTH, kinds.RELIABILITY, kinds.DURABILITY])


def is_compatible(offered: QoSProfile, wanted: QoSProfile) -> bool:
    """Return whether a subscription gets the messages of a publisher, as far as can be said."""
    return qos_check_compatible(offered, wanted)[0] != QoSCompatibility.ERROR


def mismatch(topic: str, event) -> str:
    """Say what an incompatible-QoS event on a subscription means and what to do."""
    policy = qos_policy_name_from_kind(event.last_policy_kind)
    return (
        f'a publisher on {topic} offers a QoS that this subscription cannot accept (policy {policy}), so nothing is '
        f'received from it; {REMEDY}'
    )
