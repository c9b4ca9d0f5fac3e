"""Quality of service by name, and the words for a mismatch."""

from __future__ import annotations

from rclpy.qos import (
    QoSPresetProfiles,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # its name up to Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ['SubscriptionEventCallbacks', 'mismatch', 'profile']


def profile(name: str) -> QoSProfile:
    """Return the profile of an `input.image_qos` value."""
    if name == 'RELIABLE':
        # Deep, since who asks for reliability replays: a busy process may not read for a second or two.
        return QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
    return QoSPresetProfiles[name].value


def mismatch(topic: str, event) -> str:
    """Say what an incompatible-QoS event on a subscription means and what to do."""
    policy = qos_policy_name_from_kind(event.last_policy_kind)
    return (
        f'a publisher on {topic} offers a QoS that this subscription cannot accept (policy {policy}), so nothing is '
        'received from it; set input.image_qos to SENSOR_DATA, or make the publisher reliable'
    )
