"""The common part of the launch files: arguments that become parameters, remappings and the log level of the node.

An included launch file sees all arguments of the one that includes it. Names that other launch files may use with
another meaning (device, matcher, image_transport) are therefore avoided here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

READY = 'ready: '
"""What the node logs when it has loaded its matcher and subscribes."""

AS_FILE = 'empty: as config_file says, or the default of the node'


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a launch file.

    Args:
        default: a text, or a list of texts and substitutions.
        parameter: the parameter of the node that it sets, unless it is empty.
        topic: the topic of the node that is remapped to it.
        choices: the values that it can have; in any case, as a launch file may say True or INFO.
    """

    name: str
    default: str | list
    text: str
    parameter: str = ''
    topic: str = ''
    choices: tuple[str, ...] = ()

    def value(self, context) -> str:
        """Return the value of a launch; RuntimeError if it is none of the choices."""
        value = LaunchConfiguration(self.name).perform(context)
        if not self.choices:
            return value
        value = value.lower()
        if value not in self.choices:
            raise RuntimeError(f'{self.name} must be one of {", ".join(filter(None, self.choices))}, got {value!r}')
        return value


STEREO = (
    ('image_topic', 'image_rect', 'image', 'RealSense: infra{n}/image_rect_raw, ZED: {side}/image_rect_color, OAK'),
    ('camera_info_topic', 'camera_info', 'camera_info', 'RealSense: infra{n}/camera_info, ZED and OAK'),
)
MONO_TOPICS = (
    Argument('image_topic', 'image', 'image of the one camera', topic='image'),
    Argument('camera_info_topic', 'camera_info', 'its camera_info', topic='camera_info'),
)
STEREO_TOPICS = (
    Argument('left', 'left', 'namespace of image_rect and camera_info of the left camera of a stereo pair'),
    Argument('right', 'right', 'namespace of image_rect and camera_info of the right camera'),
    *(
        Argument(
            f'{side}_{name}',
            [LaunchConfiguration(side), f'/{topic}'],
            f'{what} of the {side} camera ({examples.format(n=n, side=side)}: {side}/{topic})',
            topic=f'{side}/{topic}',
        )
        for n, side in ((1, 'left'), (2, 'right'))
        for name, topic, what, examples in STEREO
    ),
)
COMMON = (
    Argument('namespace', '', 'namespace of the node'),
    Argument('config_file', '', 'parameter file; arguments that are given override it'),
    Argument('matcher_name', '', f'matcher.name; {AS_FILE}', 'matcher.name'),
    Argument('matcher_device', '', f'matcher.device (auto, cpu, cuda, cuda:N); {AS_FILE}', 'matcher.device'),
    Argument(
        'input_image_transport', '', f'input.image_transport (raw, compressed); {AS_FILE}', 'input.image_transport'
    ),
    Argument(
        'use_sim_time',
        '',
        'true: take the time from /clock (ros2 bag play --clock, loftr_ros play --clock); false; '
        'empty: as SetParameter or config_file say',
        'use_sim_time',
        choices=('', 'true', 'false'),
    ),
    Argument(
        'log_level',
        'info',
        'debug, info, warn, error or fatal',
        choices=('debug', 'info', 'warn', 'error', 'fatal'),
    ),
)


def describe(
    arguments: Sequence[Argument],
    name: str,
    fixed: dict | None = None,
    more: Callable[[dict[str, str]], tuple[list, dict]] = lambda values: ([], {}),
    after_start: Callable[[dict[str, str]], list] = lambda values: [],
) -> LaunchDescription:
    """Return a launch description with the arguments and the node.

    Args:
        name: of the node.
        fixed: parameters that the launch file always sets.
        more: returns further actions, and further parameters, for the values of the arguments.
        after_start: returns actions that begin when the node is ready, which takes some seconds.
    """

    def start(context) -> list:
        values = {argument.name: argument.value(context) for argument in arguments}
        actions, parameters = more(values)
        node = _node(context, arguments, values, name, {**(fixed or {}), **parameters})
        return [node, *actions, *_when_ready(node, after_start(values))]

    declared = [DeclareLaunchArgument(a.name, default_value=a.default, description=a.text) for a in arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _when_ready(node: Node, waiting: list) -> list:
    """Return the action that begins those that wait, when the log of the node says that it is ready."""

    def on_output(event):
        if waiting and READY in event.text.decode(errors='replace'):
            ready, waiting[:] = list(waiting), []
            return ready
        return None

    if not waiting:
        return []
    return [RegisterEventHandler(OnProcessIO(target_action=node, on_stdout=on_output, on_stderr=on_output))]


def _node(context, arguments, values: dict[str, str], name: str, overrides: dict) -> Node:
    parameters = []
    if values['config_file']:
        _check_exists(values['config_file'])
        parameters.append(values['config_file'])
    for argument in arguments:
        value = values[argument.name]
        if argument.parameter and value:
            overrides[argument.parameter] = value == 'true' if argument.choices[1:] == ('true', 'false') else value
    if overrides:
        parameters.append(overrides)
    # Of all rigs: a parameter file may choose any, and the node subscribes to what its own needs.
    remappings = [(argument.topic, values[argument.name]) for argument in arguments if argument.topic]
    pushed = context.launch_configurations.get('ros_namespace', '')
    namespace = values['namespace']
    if namespace.strip('/') == pushed.strip('/'):
        namespace = ''  # a parent launch file that pushes its own argument `namespace`
    full_name = make_namespace_absolute(prefix_namespace(pushed, namespace)).rstrip('/') + f'/{name}'
    logger = full_name[1:].replace('/', '.')
    return Node(
        package='loftr_ros',
        executable='matcher_node',
        name=name,
        namespace=namespace,
        parameters=parameters,
        remappings=remappings,
        arguments=['--ros-args', '--log-level', f'{logger}:={values["log_level"]}'],
        output='screen',
    )


def _check_exists(config_file: str) -> None:
    if not Path(config_file).is_file():
        config = Path(get_package_share_directory('loftr_ros')) / 'config'
        shipped = ', '.join(sorted(path.name for path in config.glob('*.yaml')))
        raise RuntimeError(f'config_file {config_file} does not exist; {config} has {shipped}')
