"""The launch file, where launch is installed: it is part of a ROS 2 distribution and not on PyPI."""

from pathlib import Path

import pytest

pytest.importorskip('launch_ros')
launch = pytest.importorskip('launch')

LAUNCH_FILE = Path(__file__).parents[1] / 'launch' / 'matcher.launch.py'


def started(given, *, before=(), parent=None):
    """Return the node that the launch file starts, as it is included from another one; nothing is run.

    Args:
        given: arguments of the include.
        before: actions of the including launch file.
        parent: arguments of the including launch file.
    """
    from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    context = launch.LaunchContext()
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
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
