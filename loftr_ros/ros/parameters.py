"""ROS parameters from `Config`: declaration, descriptors and checked changes."""

from __future__ import annotations

from collections.abc import Callable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from loftr_ros.config import Config
from loftr_ros.errors import LoftrRosError, did_you_mean
from loftr_ros.parameter_files import ROS_OWN
from loftr_ros.settings import Setting, flatten, override

INT64_MAX = 2**63 - 1
FLOAT64_MAX = 1.7976931348623157e308


def declare(node, defaults: Config) -> Config:
    """Declare every setting on `node` and return the configuration with the overrides (files, command line) applied.

    Raises:
        ConfigError: an override is of the wrong type or out of range.
    """
    settings = flatten(defaults)
    # rclpy silently ignores unknown names, so that a typing error looks like a setting without effect.
    overrides = getattr(node, '_parameter_overrides', {})
    known = [item.name for item in settings]
    for name in overrides:
        if name not in known and name.split('.')[0] not in ROS_OWN:
            node.get_logger().warning(f'parameter {name} is unknown and has no effect; {did_you_mean(name, known)}')
    values = {name: overrides[name].value for name in known if name in overrides}
    config = override(defaults, values)
    for item in flatten(config):
        node.declare_parameter(item.name, item.value, descriptor(item), ignore_override=True)
    return config


def unused_qos_overrides(node) -> list[str]:
    """Return a warning for each `qos_overrides` that no subscription has used. Call it after all are created."""
    names = [name for name in getattr(node, '_parameter_overrides', {}) if name.startswith('qos_overrides.')]
    return [
        f'parameter {name} has no effect: it must be qos_overrides.<topic>.subscription.<policy> with the full name of '
        'an image or camera_info topic after remapping, and history, depth, reliability or durability'
        for name in names
        if not node.has_parameter(name)
    ]


def descriptor(item: Setting) -> ParameterDescriptor:
    """Return the ROS description of a setting."""
    message = ParameterDescriptor(
        name=item.name,
        description=item.meaning,
        additional_constraints=item.range,
        read_only=item.fixed,
        # A float setting also accepts an integer, which ROS's static types refuse; Setting.check checks the type.
        dynamic_typing=True,
    )
    if item.minimum is None and item.maximum is None:
        return message
    if isinstance(item.value, int):
        low = -INT64_MAX if item.minimum is None else int(item.minimum)
        high = INT64_MAX if item.maximum is None else int(item.maximum)
        message.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    else:
        low = -FLOAT64_MAX if item.minimum is None else float(item.minimum)
        high = FLOAT64_MAX if item.maximum is None else float(item.maximum)
        message.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return message


def on_change(current: Callable[[], Config], apply: Callable[[Config], None]):
    """Return a callback for `add_on_set_parameters_callback`: it refuses a bad value with a reason.

    `apply` takes the new configuration and may raise LoftrRosError to refuse it.
    """

    def callback(parameters: list[Parameter]) -> SetParametersResult:
        known = {item.name for item in flatten(current())}
        values = {parameter.name: parameter.value for parameter in parameters if parameter.name in known}
        try:
            apply(override(current(), values))
        except LoftrRosError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # any error of a network or an engine: the node continues with the old settings
            return SetParametersResult(successful=False, reason=f'please report this: {type(error).__name__}: {error}')
        return SetParametersResult(successful=True)

    return callback
