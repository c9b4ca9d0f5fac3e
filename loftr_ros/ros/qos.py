"""Quality of service: profiles by name, and error messages for a mismatch."""

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

__all__ = ['SubscriptionEventCallbacks', 'misfit', 'mismatch', 'overridable', 'profile']

REMEDIES = {
    'reliability': 'set input.image_qos to SENSOR_DATA, without {own}.reliability, or make the publisher reliable',
    'durability': 'set {own}.durability to volatile, or make the publisher transient_local',
}
"""What to do, by the incompatible policy."""


def profile(name: str) -> QoSProfile:
    """Return the profile of an `input.image_qos` value, a new one each time."""
    if name == 'RELIABLE':
        # Deep, because RELIABLE is used to replay data: a busy process may not read for a second or two.
        return QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
    return copy.copy(QoSPresetProfiles[name].value)  # rclpy writes overrides into the profile that it is given


def overridable() -> QoSOverridingOptions:
    """Return the policies that a user can override by parameters (`qos_overrides.<topic>.subscription.reliability`)."""
    kinds = QoSPolicyKind
    return QoSOverridingOptions([kinds.HISTORY, kinds.DEPTH, kinds.RELIABILITY, kinds.DURABILITY])


def misfit(topic: str, offered: QoSProfile, wanted: QoSProfile) -> str:
    """Return what to do if a publisher's QoS is incompatible with a subscription; empty if it is compatible."""
    if _compatible(offered, wanted):
        return ''
    single = {name: [QoSProfile(depth=1, **{name: getattr(q, name)}) for q in (offered, wanted)] for name in REMEDIES}
    return _remedy(topic, [name for name, profiles in single.items() if not _compatible(*profiles)])


def _compatible(offered: QoSProfile, wanted: QoSProfile) -> bool:
    return qos_check_compatible(offered, wanted)[0] != QoSCompatibility.ERROR


def mismatch(topic: str, event) -> str:
    """Return what an incompatible-QoS event on a subscription means and what to do."""
    policy = qos_policy_name_from_kind(event.last_policy_kind)
    return (
        f'a publisher on {topic} offers a QoS that this subscription cannot accept (policy {policy}), so nothing is '
        f'received from it; {_remedy(topic, [name for name in REMEDIES if name in policy.lower()])}'
    )


def _remedy(topic: str, policies: list[str]) -> str:
    own = f'qos_overrides.{topic}.subscription'
    remedies = [REMEDIES[policy].format(own=own) for policy in policies]
    return '; '.join(remedies) or f'compare both with ros2 topic info --verbose {topic}'
