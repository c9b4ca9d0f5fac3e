"""The ROS node: it subscribes to cameras and publishes matches, relative poses and, with pairing odometry, the motion.

It contains parameters, subscriptions, publishers and diagnostics; `worker.py` does the work. Callbacks do not compute.
Reception, services and /clock each have a callback group, because a service may wait seconds for a matcher to load.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

from loftr_ros.config import Config
from loftr_ros.errors import LoftrRosError
from loftr_ros.odometry.stamps import JUMP_NS
from loftr_ros.parameter_files import NODE_NAME
from loftr_ros.ros import compat, diagnostics, parameters, process
from loftr_ros.ros.extrinsics import CameraFromDepth
from loftr_ros.ros.inputs import CameraInputs, has_separate_depth, rig_of, unused_settings
from loftr_ros.ros.outputs import PairOutputs
from loftr_ros.ros.services import Services
from loftr_ros.ros.speed_input import SpeedInput
from loftr_ros.ros.worker import Worker
from loftr_ros.runtime import prepare_process
from loftr_ros.settings import flatten

if TYPE_CHECKING:
    from loftr_ros.ros.odometry_outputs import OdometryOutputs


class MatcherNode(Node):
    """Matches the images of a stereo pair, or keyframe and newest frame, or computes the odometry of a rig."""

    def __init__(self, **kwargs):
        self._worker: Worker | None = None  # until it is created, which may fail
        self._service_group = MutuallyExclusiveCallbackGroup()
        super().__init__(NODE_NAME, **kwargs)
        try:
            self._start()
        except LoftrRosError as error:
            process.tell_failure(self, f'matcher_node cannot start: {error}')
            raise

    def create_service(self, *arguments, callback_group=None, **keywords):
        """Create a service, by default in the callback group of the services.

        This includes rclpy's services for parameters, which it would put into the group of the subscription to /clock.
        """
        return super().create_service(*arguments, callback_group=callback_group or self._service_group, **keywords)

    def _start(self) -> None:
        self.config = parameters.declare(self, Config())
        for line in (*prepare_process(self.config.matcher.keep_memory), *compat.describe()):
            self.get_logger().info(line)
        self.statistics = diagnostics.Statistics()
        self._outputs = self._create_outputs()
        self._worker = Worker(
            self.config,
            self.statistics,
            self._outputs.publish,
            self.get_logger(),
            self.context.ok,
            CameraFromDepth(self, self.config) if has_separate_depth(self.config) else None,
        )
        self._controls = Services(self, self._worker, lambda: self.config, self._restart)
        self.get_logger().info(f'ready: matcher {self._worker.matcher_name}, {self._describe_pairing()}')
        self.add_on_set_parameters_callback(parameters.on_change(lambda: self.config, self._apply))

        reception = MutuallyExclusiveCallbackGroup()
        self._inputs = CameraInputs(self, self.config, self.statistics, self._on_set, reception)
        self._speed = self._create_speed_input(reception)
        for line in unused_settings(self.config):
            self.get_logger().warning(line)
        for line in parameters.unused_qos_overrides(self):
            self.get_logger().warning(line)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', self.config.output.queue_size)
        # A watchdog must not depend on /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period_s = self.config.output.diagnostics_period_s
        self.create_timer(period_s, self._publish_diagnostics, callback_group=reception, clock=steady)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JUMP_NS), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_time_jump)
        self._worker.start()

    def _create_outputs(self) -> PairOutputs | OdometryOutputs:
        if not self._is_odometry:
            return PairOutputs(self, self.config)
        from loftr_ros.ros.odometry_outputs import OdometryOutputs  # needs nav_msgs, which a matcher does not

        return OdometryOutputs(self, self.config)

    def _create_speed_input(self, callback_group) -> SpeedInput | None:
        if rig_of(self.config) != 'mono' or self.config.odometry.speed == 'none' or not self._is_odometry:
            return None
        mounting = self._outputs.base_from_cam
        return SpeedInput(self, self.config, mounting, self._worker.add_speed, callback_group)

    @property
    def _is_odometry(self) -> bool:
        return self.config.input.pairing == 'odometry'

    def _describe_pairing(self) -> str:
        settings = self.config.odometry
        if not self._is_odometry:
            return f'pairing {self.config.input.pairing}'
        unit = ''
        if settings.rig == 'mono':
            unit = ', the unit of length is unknown' + (' until speeds arrive' if settings.speed != 'none' else '')
        return f'odometry of a {settings.rig} rig, {settings.odom_frame} -> {settings.base_frame}{unit}'

    def finish(self) -> None:
        """Stop the worker; return when the pair in work is published."""
        if self._worker is not None:
            self._worker.close()

    def destroy_node(self) -> None:
        """Finish before the publishers are destroyed."""
        self.finish()
        super().destroy_node()

    # Callbacks, on the threads of the executor.

    def _on_set(self, *messages) -> None:
        if not self._controls.paused:
            self._worker.put(messages)

    def _on_time_jump(self, _jump) -> None:
        self._restart('the clock jumped')

    def _restart(self, reason: str) -> None:
        self._inputs.reset()
        self._worker.restart(reason)

    def _apply(self, config: Config) -> None:
        """Use a changed configuration, or raise LoftrRosError to refuse it."""
        self._worker.configure(config)
        before = {item.name: item.value for item in flatten(self.config)}
        changed = [f'{item.name} = {item.value!r}' for item in flatten(config) if item.value != before[item.name]]
        if changed:
            self.get_logger().info(f'parameters changed: {", ".join(changed)}')
        self._outputs.configure(config)
        self.config = config

    def _publish_diagnostics(self) -> None:
        waiting_for = self._inputs.waiting_for()
        if waiting_for:
            self.get_logger().warning(waiting_for, throttle_duration_sec=30.0)
        name = diagnostics.status_name(self.get_fully_qualified_name()[1:])
        received, speed_fault = self._inputs.received, ''
        if self._speed is not None:
            received[self._speed.topic] = self._speed.received
            speed_fault = self._speed.fault or self._worker.unit_fault
        if speed_fault:
            self.get_logger().warning(f'no unit of length: {speed_fault}', throttle_duration_sec=30.0)
        fault = self._inputs.clock_fault() or self._outputs.fault or speed_fault
        fault = 'Paused: call ~/resume.' if self._controls.paused else fault
        status = self.statistics.status(name, received, waiting_for, fault)
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().to_msg(), status))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return 1 if it cannot start."""
    return process.run(MatcherNode, 'matcher_node', arguments)


if __name__ == '__main__':
    sys.exit(main())
