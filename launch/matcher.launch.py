"""Start the matcher node.

Examples:
    ros2 launch loftr_ros matcher.launch.py image_topic:=/camera/image_rect camera_info_topic:=/camera/camera_info
    ros2 launch loftr_ros matcher.launch.py pairing:=stereo left:=/stereo/left right:=/stereo/right
    ros2 launch loftr_ros matcher.launch.py pairing:=stereo left_image_topic:=/camera/infra1/image_rect_raw \
        left_camera_info_topic:=/camera/infra1/camera_info ...

An included launch file sees all arguments of the one that includes it. Therefore what other launch files may have under
the same name with another meaning (device, matcher, image_transport) has a name of its own here.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

AS_FILE = 'empty: as config_file says, or the default of the node'
STEREO = (
    ('image_topic', 'image_rect', 'image', 'RealSense: infra{n}/image_rect_raw, ZED: {side}/image_rect_color, OAK'),
    ('camera_info_topic', 'camera_info', 'camera_info', 'RealSense: infra{n}/camera_info, ZED and OAK'),
)
ARGUMENTS = (
    (
        'pairing',
        '',
        f'temporal: one camera, keyframe with current frame; stereo: left with right; {AS_FILE} (temporal)',
    ),
    ('image_topic', 'image', 'image of the one camera (pairing temporal)'),
    ('camera_info_topic', 'camera_info', 'its camera_info'),
    ('left', 'left', 'namespace of image_rect and camera_info of the left camera (pairing stereo)'),
    ('right', 'right', 'namespace of image_rect and camera_info of the right camera'),
    *(
        (
            f'{side}_{name}',
            [LaunchConfiguration(side), f'/{topic}'],
            f'{what} of the {side} camera ({examples.format(n=n, side=side)}: {side}/{topic})',
        )
        for n, side in ((1, 'left'), (2, 'right'))
        for name, topic, what, examples in STEREO
    ),
    ('namespace', '', 'namespace of the node'),
    ('config_file', '', 'parameter file; an argument that is given goes before what it says'),
    ('matcher_name', '', f'matcher.name; {AS_FILE}'),
    ('matcher_device', '', f'matcher.device (auto, cpu, cuda, cuda:N); {AS_FILE}'),
    ('input_image_transport', '', f'input.image_transport (raw, compressed); {AS_FILE}'),
    (
        'use_sim_time',
        '',
        'true: take the time from /clock (ros2 bag play --clock, loftr_ros play --clock); false; '
        'empty: as SetParameter or config_file say',
    ),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)
CHOICES = {
    'pairing': ('', 'temporal', 'stereo'),
    'use_sim_time': ('', 'true', 'false'),
    'log_level': ('debug', 'info', 'warn', 'error', 'fatal'),
}
PARAMETERS = {
    'pairing': 'input.pairing',
    'matcher_name': 'matcher.name',
    'matcher_device': 'matcher.device',
    'input_image_transport': 'input.image_transport',
}


def start(context):
    """Return the node with the values of the arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    for name, choices in CHOICES.items():
        value[name] = value[name].lower()  # a parent launch file may say True or INFO
        if value[name] not in choices:
            raise RuntimeError(f'{name} must be one of {", ".join(filter(None, choices))}, got {value[name]!r}')
    parameters = []
    if value['config_file']:
        if not Path(value['config_file']).is_file():
            config = Path(get_package_share_directory('loftr_ros')) / 'config'
            shipped = ', '.join(sorted(path.name for path in config.glob('*.yaml')))
            raise RuntimeError(f'config_file {value["config_file"]} does not exist; {config} has {shipped}')
        parameters.append(value['config_file'])
    overrides = {name: value[argument] for argument, name in PARAMETERS.items() if value[argument]}
    if value['use_sim_time']:
        overrides['use_sim_time'] = value['use_sim_time'] == 'true'
    if overrides:
        parameters.append(overrides)
    # Of both pairings: a parameter file may choose either, and the node subscribes to what its own needs.
    remappings = [('image', value['image_topic']), ('camera_info', value['camera_info_topic'])]
    remappings += [
        (f'{side}/{topic}', value[f'{side}_{name}']) for side in ('left', 'right') for name, topic, _, _ in STEREO
    ]
    pushed = context.launch_configurations.get('ros_namespace', '')
    namespace = value['namespace']
    if namespace.strip('/') == pushed.strip('/'):
        namespace = ''  # a parent launch file that pushes its own argument `namespace`
    full_name = make_namespace_absolute(prefix_namespace(pushed, namespace)).rstrip('/') + '/matcher'
    return [
        Node(
            package='loftr_ros',
            executable='matcher_node',
            name='matcher',
            namespace=namespace,
            parameters=parameters,
            remappings=remappings,
            arguments=['--ros-args', '--log-level', f'{full_name[1:].replace("/", ".")}:={value["log_level"]}'],
            output='screen',
        )
    ]


def generate_launch_description():
    """Return the arguments and the node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
