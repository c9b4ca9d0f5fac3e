"""The launch files, where launch is installed: it is part of a ROS 2 distribution and not on PyPI."""

from pathlib import Path

import pytest

pytest.importorskip('launch_ros')
launch = pytest.importorskip('launch')

LAUNCH_FOLDER = Path(__file__).parents[1] / 'launch'


def started(given, *, before=(), parent=None, file='matcher.launch.py'):
    """Return the node that the launch file starts, as it is included from another one; nothing is run.

    Args:
        given: arguments of the include.
        before: actions of the including launch file.
        parent: arguments of the including launch file.
        file: name of the launch file.
    """
    from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    context = launch.LaunchContext()
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / file))
    include = IncludeLaunchDescription(source, launch_arguments=given.items())
    arguments = [DeclareLaunchArgument(name, default_value=value) for name, value in (parent or {}).items()]
    waiting = [*arguments, *before, include]
    while waiting:
        entity = waiting.pop(0)
        if isinstance(entity, Node):
            entity._perform_substitutions(context)
            return entity, context
        waiting[:0] = entity.visit(context) or []
    raise AssertionError('no node')


def parameters(node, context):
    from launch_ros.utilities import evaluate_parameters

    return evaluate_parameters(context, node._Node__parameters)


def remappings(node):
    return dict(node.expanded_remapping_rules)


def log_level(node, context):
    words = [
        words[0].perform(context) for words in node.cmd if isinstance(words[0], launch.substitutions.TextSubstitution)
    ]
    return words[words.index('--log-level') + 1]


def test_arguments_become_parameters_and_no_argument_becomes_none():
    assert parameters(*started({'pairing': 'stereo', 'matcher_device': 'cpu', 'use_sim_time': 'True'})) == (
        {'input.pairing': 'stereo', 'matcher.device': 'cpu', 'use_sim_time': True},
    )
    assert parameters(*started({})) == ()


def test_arguments_go_before_the_parameter_file(tmp_path):
    file = tmp_path / 'a.yaml'
    file.write_text('/**:\n  ros__parameters:\n    input:\n      pairing: temporal\n')
    found = parameters(*started({'pairing': 'stereo', 'config_file': str(file)}))
    assert found == (file, {'input.pairing': 'stereo'})


def test_topics_of_both_pairings_are_remapped_whatever_chooses_the_pairing():
    node, _ = started(
        {'image_topic': '/cam/image', 'left': '/rig/left', 'right_image_topic': '/zed/right/image_rect_color'}
    )
    assert remappings(node) == {
        'image': '/cam/image',
        'camera_info': 'camera_info',
        'left/image_rect': '/rig/left/image_rect',
        'left/camera_info': '/rig/left/camera_info',
        'right/image_rect': '/zed/right/image_rect_color',
        'right/camera_info': 'right/camera_info',
    }


def test_arguments_of_other_meaning_in_the_including_file_are_not_taken():
    parent = {'device': '/dev/video0', 'matcher': 'slam', 'image_transport': 'ffmpeg'}
    assert parameters(*started({}, parent=parent)) == ()


@pytest.mark.parametrize(('given', 'logger'), [('', 'matcher'), ('/a/b', 'a.b.matcher'), ('robot1', 'robot1.matcher')])
def test_the_log_level_is_that_of_the_logger_in_the_namespace(given, logger):
    node, context = started({'namespace': given, 'log_level': 'ERROR'})
    assert log_level(node, context) == f'{logger}:=error'


def test_a_namespace_that_the_including_file_pushes_is_not_added_twice():
    from launch_ros.actions import PushRosNamespace

    node, context = started({}, parent={'namespace': 'robot1'}, before=[PushRosNamespace('robot1')])
    assert node.expanded_node_namespace == '/robot1'
    assert log_level(node, context) == 'robot1.matcher:=info'


@pytest.mark.parametrize(
    ('name', 'value', 'wanted'),
    [
        ('pairing', 'mono', 'temporal, stereo'),
        ('use_sim_time', 'yes', 'true, false'),
        ('log_level', 'loud', 'debug, info'),
    ],
)
def test_a_wrong_value_is_answered_with_the_known_ones(name, value, wanted):
    with pytest.raises(RuntimeError, match=f"{name} must be one of {wanted}.*got '{value}'"):
        started({name: value})


def test_odometry_is_the_node_with_its_pairing_and_the_topics_of_all_rigs():
    given = {
        'rig': 'rgbd',
        'depth_topic': '/camera/aligned_depth_to_color/image_raw',
        'base_frame': 'base_footprint',
        'publish_odom_tf': 'True',
        'process_every_frame': 'false',
    }
    node, context = started(given, file='odometry.launch.py')
    assert parameters(node, context) == (
        {
            'input.pairing': 'odometry',
            'odometry.rig': 'rgbd',
            'odometry.base_frame': 'base_footprint',
            'odometry.publish_odom_tf': True,
            'input.process_every_frame': False,
        },
    )
    assert remappings(node)['depth/image'] == '/camera/aligned_depth_to_color/image_raw'
    assert {'image', 'camera_info', 'left/image_rect', 'right/camera_info'} <= remappings(node).keys()
    assert log_level(node, context) == 'visual_odometry:=info'


def test_a_pose_of_the_camera_stays_a_text():
    node, context = started({'base_from_camera': '0.1 0 0.3 -1.5708 0 -1.5708'}, file='odometry.launch.py')
    assert parameters(node, context)[0]['odometry.base_from_camera'] == '0.1 0 0.3 -1.5708 0 -1.5708'


def test_a_bag_is_played_with_its_clock():
    node, context = started({'bag': '/tmp/drive', 'bag_rate': '0.5'}, file='odometry.launch.py')
    assert parameters(node, context)[0]['use_sim_time'] is True
