"""The launch file, where launch is installed: it is part of a ROS 2 distribution and not on PyPI."""

import ast
from pathlib import Path

import pytest

LAUNCH_FILE = Path(__file__).parents[1] / 'launch' / 'matcher.launch.py'


def module():
    namespace = {}
    exec(compile(LAUNCH_FILE.read_text(), str(LAUNCH_FILE), 'exec'), namespace)
    return namespace


def test_presets_and_packages_of_the_launch_file_exist():
    tree = ast.parse(LAUNCH_FILE.read_text())
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    presets = {value for value in constants if isinstance(value, str) and value.endswith('.yaml') and '*' not in value}
    assert presets == {'mono.yaml', 'stereo.yaml'}
    assert all((LAUNCH_FILE.parents[1] / 'config' / name).is_file() for name in presets)
    assert (LAUNCH_FILE.parents[1] / 'scripts' / 'matcher_node').is_file()


@pytest.mark.ros
@pytest.mark.parametrize(('pairing', 'remapped'), [('temporal', '/cam/image'), ('stereo', '/rig/left/image_rect')])
def test_arguments_become_remappings_and_parameters(pairing, remapped):
    launch = pytest.importorskip('launch')
    pytest.importorskip('launch_ros')
    from launch_ros.utilities import evaluate_parameters

    context = launch.LaunchContext()
    file = module()
    given = {'pairing': pairing, 'image_topic': '/cam/image', 'left': '/rig/left', 'device': 'cpu'}
    for name, default, _ in file['ARGUMENTS']:
        context.launch_configurations[name] = given.get(name, default)
    (node,) = file['start'](context)
    node._perform_substitutions(context)
    assert remapped in [target for _, target in node.expanded_remapping_rules]
    parameters = evaluate_parameters(context, node._Node__parameters)
    assert {'use_sim_time': False, 'matcher.device': 'cpu'} in [p for p in parameters if isinstance(p, dict)]


def test_a_wrong_pairing_is_answered_with_the_known_ones():
    launch = pytest.importorskip('launch')
    pytest.importorskip('launch_ros')
    context = launch.LaunchContext()
    file = module()
    for name, default, _ in file['ARGUMENTS']:
        context.launch_configurations[name] = default
    context.launch_configurations['pairing'] = 'mono'
    with pytest.raises(RuntimeError, match='temporal, stereo'):
        file['start'](context)
