"""Start the matcher node.

Examples:
    ros2 launch loftr_ros matcher.launch.py image_topic:=/camera/image_rect camera_info_topic:=/camera/camera_info
    ros2 launch loftr_ros matcher.launch.py pairing:=stereo left:=/stereo/left right:=/stereo/right
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = (
    ('pairing', 'temporal', 'temporal: one camera, keyframe with current frame; stereo: left with right'),
    ('image_topic', 'image', 'image of the one camera (pairing temporal)'),
    ('camera_info_topic', 'camera_info', 'its camera_info'),
    ('left', 'left', 'namespace of image_rect and camera_info of the left camera (pairing stereo)'),
    ('right', 'right', 'namespace of image_rect and camera_info of the right camera'),
    ('namespace', '', 'namespace of the node'),
    ('config_file', '', 'parameter file, applied after the preset of the pairing'),
    ('matcher', '', 'matcher.name; empty: as the parameter files say'),
    ('device', '', 'matcher.device (auto, cpu, cuda, cuda:N); empty: as the parameter files say'),
    ('image_transport', '', 'raw or compressed; empty: as the parameter files say'),
    ('use_sim_time', 'false', 'take the time from /clock (ros2 bag play --clock, loftr_ros play --clock)'),
    ('log_level', 'info', 'debug, info, warn or error'),
)
PRESETS = {'temporal': 'mono.yaml', 'stereo': 'stereo.yaml'}


def start(context):
    """Return the node with the values of the arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    pairing = value['pairing']
    if pairing not in PRESETS:
        raise RuntimeError(f'pairing must be one of {", ".join(PRESETS)}, got {pairing!r}')
    config = Path(get_package_share_directory('loftr_ros')) / 'config'
    parameters = [str(config / PRESETS[pairing])]
    if value['config_file']:
        if not Path(value['config_file']).is_file():
            shipped = ', '.join(sorted(path.name for path in config.glob('*.yaml')))
            raise RuntimeError(f'config_file {value["config_file"]} does not exist; {config} has {shipped}')
        parameters.append(value['config_file'])
    overrides = {'use_sim_time': value['use_sim_time'].lower() == 'true'}
    for argument, name in (
        ('matcher', 'matcher.name'),
        ('device', 'matcher.device'),
        ('image_transport', 'input.image_transport'),
    ):
        if value[argument]:
            overrides[name] = value[argument]
    parameters.append(overrides)
    if pairing == 'temporal':
        remappings = [('image', value['image_topic']), ('camera_info', value['camera_info_topic'])]
    else:
        remappings = [
            (f'{side}/{topic}', f'{value[side]}/{topic}')
            for side in ('left', 'right')
            for topic in ('image_rect', 'camera_info')
        ]
    return [
        Node(
            package='loftr_ros',
            executable='matcher_node',
            name='matcher',
            namespace=value['namespace'],
            parameters=parameters,
            remappings=remappings,
            arguments=['--ros-args', '--log-level', f'matcher:={value["log_level"]}'],
            output='screen',
        )
    ]


def generate_launch_description():
    """Return the arguments and the node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
