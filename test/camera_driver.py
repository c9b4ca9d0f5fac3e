"""A camera driver in the process of a test, and a node in another process."""

import dataclasses
import os
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from loftr_ros.msg import Matches, RelativePose
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from loftr_ros.messages import stamp_ns
from loftr_ros.ros import conversions, live_run
from loftr_ros.ros.compat import CvBridge

SECOND_NS = 1_000_000_000
BRIDGE = CvBridge()


@dataclasses.dataclass
class Camera:
    """A camera driver in this process and a node in another one, in a DDS domain of their own.

    Args:
        parameters: of the node.
        arguments: further ROS arguments of the node.
        compressed: publish compressed images.
        module: of the node.
        outputs: further topics of the node to subscribe to, with their types; their messages are in `heard`.
    """

    folder: object
    parameters: dict
    arguments: tuple = ()
    compressed: bool = False
    module: str = 'loftr_ros.ros.matcher_node'
    outputs: dict = dataclasses.field(default_factory=dict)

    def __enter__(self):
        environment = live_run.isolate()
        arguments = ['--ros-args', *self.arguments]
        for name, value in {
            'input.process_every_frame': 'true',
            'input.image_qos': 'RELIABLE',
            **self.parameters,
        }.items():
            arguments += ['-p', f'{name}:={value}']
        self.process = live_run.Process(self.module, arguments, environment, self.folder / 'node.log')
        os.environ.update({k: v for k, v in environment.items() if k.startswith(('ROS_', 'FASTDDS_'))})
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('driver', context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        image_type, topic = (CompressedImage, 'image/compressed') if self.compressed else (Image, 'image')
        self.image = self.node.create_publisher(image_type, topic, reliable)
        self.info = self.node.create_publisher(CameraInfo, 'camera_info', reliable)
        self.matches, self.poses, self.pictures, self.diagnostics = [], [], [], {}
        self.node.create_subscription(Matches, 'matcher/matches', self.matches.append, 100)
        self.node.create_subscription(RelativePose, 'matcher/relative_pose', self.poses.append, 100)
        self.heard = {topic: [] for topic in self.outputs}
        for topic, message_type in self.outputs.items():
            self.node.create_subscription(message_type, f'matcher/{topic}', self.heard[topic].append, 100)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.wait(lambda: self.diagnostics and self.image.get_subscription_count(), 'the node to start')
        return self

    def __exit__(self, *_):
        try:
            status = self.process.stop()
        finally:
            self.executor.shutdown()
            self.node.destroy_node()
            rclpy.try_shutdown(context=self.context)
        assert status == 0, self.process.log.read_text()

    def _on_diagnostics(self, message):
        self.status = message.status[0]
        self.stamp_s = stamp_ns(message.header) / SECOND_NS
        self.diagnostics = {item.key: item.value for item in self.status.values}

    def wait(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            self.executor.spin_once(timeout_sec=0.05)
            self.process.check()
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}:\n{self.process.log.read_text()}'

    def send(self, image, camera, stamp_ns, encoding='bgr8', change=None):
        """Publish an image, after `change(image_msg, info_msg)`, and return its stamp."""
        header = conversions.header(stamp_ns, 'camera_optical_frame')
        if self.compressed:
            message = BRIDGE.cv2_to_compressed_imgmsg(image)
            message.header = header
        else:
            message = BRIDGE.cv2_to_imgmsg(image, encoding, header)
        info = conversions.info_from_camera(camera, header)
        if change:
            change(message, info)
        self.info.publish(info)
        self.image.publish(message)
        return stamp_ns

    def accounted(self):
        return sum(int(self.diagnostics[key]) for key in ('processed', 'dropped', 'superseded'))

    def wait_for_all(self, number):
        self.wait(lambda: self.accounted() >= number, f'{number} frames to be accounted for')

    def request(self, name, value):
        """Ask for a change of a parameter and return the future answer."""
        client = self.node.create_client(SetParameters, 'matcher/set_parameters')
        assert client.wait_for_service(10)
        return client.call_async(SetParameters.Request(parameters=[Parameter(name=name, value=value)]))

    def set(self, name, value):
        future = self.request(name, value)
        self.wait(future.done, 'the answer to set_parameters')
        return future.result().results[0]

    def call(self, service_type, name, **fields):
        """Call a service of the node and return its answer."""
        client = self.node.create_client(service_type, f'matcher/{name}')
        assert client.wait_for_service(10)
        future = client.call_async(service_type.Request(**fields))
        self.wait(future.done, f'the answer of {name}')
        return future.result()
