"""Who may import whom (ARCHITECTURE.md), read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'loftr_ros'

ALLOWED = {
    'errors': set(),
    'config': {'errors'},
    'runtime': set(),
    'datatypes': {'errors'},
    'output_files': {'errors'},
    'levels': {'errors'},
    'image': {'errors', 'datatypes'},
    'image_files': {'errors', 'image', 'levels'},
    'geometry': {'errors', 'datatypes'},
    'rendering': {'errors', 'datatypes', 'geometry', 'image'},
    'datasets': {
        *('errors', 'datatypes', 'geometry', 'image', 'image_files', 'output_files', 'rendering'),
    },
    'pose': {'errors', 'datatypes', 'config', 'geometry', 'image'},
    'networks': {'errors', 'networks'},
    'weights': {'errors', 'networks', 'output_files'},
    'matchers': {'errors', 'datatypes', 'config', 'image', 'networks', 'weights', 'matchers', 'output_files'},
    'odometry': {'errors', 'datatypes', 'config', 'geometry', 'image', 'pose', 'matchers', 'odometry'},
    'training': {
        *('errors', 'config', 'networks', 'weights', 'geometry', 'image', 'rendering', 'datatypes', 'training'),
        *('image_files', 'output_files', 'datasets'),
    },
}
"""What each part may import of the package. evaluation, ros, commands and cli stand on top; see below."""

ON_TOP = {'api', 'evaluation', 'ros', 'commands', 'cli'}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path: Path):
    """Yield (dotted name, whether it runs at import of the module) for every import of the file."""
    tree = ast.parse(path.read_text())
    top_level = {id(node) for node in ast.walk(tree)} - {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top_level
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f'{node.module}.{alias.name}', id(node) in top_level


FILES = sorted(path for path in PACKAGE.rglob('*.py') if path.name != '__init__.py' or path.parent != PACKAGE)


def test_every_import_follows_the_arrows():
    wrong = []
    for path in FILES:
        part = part_of(path)
        for name, _ in imports(path):
            if not name.startswith('loftr_ros.'):
                continue
            target = name.split('.')[1]
            if part in ALLOWED and target not in ALLOWED[part] | {part}:
                wrong.append(f'{path.relative_to(PACKAGE)} imports {name}')
            if target in ('commands', 'cli', 'api') and part not in ('commands', 'cli'):
                wrong.append(f'{path.relative_to(PACKAGE)} imports {name}')
            if target in ('ros', 'training', 'msg') and part not in ('ros', 'commands', target):
                wrong.append(f'{path.relative_to(PACKAGE)} imports {name}')
        assert part in ALLOWED or part in ON_TOP, f'{part} is new: give it a place in this table'
    assert not wrong, '\n'.join(wrong)


def test_only_the_ros_folder_imports_ros():
    ros = ('rclpy', 'rcl_interfaces', 'sensor_msgs', 'std_msgs', 'geometry_msgs', 'diagnostic_msgs', 'rosgraph_msgs')
    wrong = [
        f'{path.relative_to(PACKAGE)} imports {name}'
        for path in FILES
        for name, _ in imports(path)
        if name.split('.')[0] in (*ros, 'cv_bridge', 'message_filters') and part_of(path) != 'ros'
    ]
    assert not wrong, '\n'.join(wrong)


def test_help_geometry_and_metrics_work_without_torch_and_ros():
    """In a process of its own, where importing any of them raises."""
    program = """
import sys
from importlib.abc import MetaPathFinder
class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in ('torch', 'rclpy', 'sensor_msgs'):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import loftr_ros.geometry, loftr_ros.pose, loftr_ros.matchers, loftr_ros.api, loftr_ros.evaluation.metrics
from loftr_ros.cli import COMMANDS, main
for arguments in [['--help'], *([name, '--help'] for name in COMMANDS)]:
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0, arguments
"""
    subprocess.run([sys.executable, '-c', program], check=True, cwd=PACKAGE.parent, stdout=subprocess.DEVNULL)
