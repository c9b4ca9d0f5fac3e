"""Allowed imports (ARCHITECTURE.md), read from the source: import statements and module names in tables."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'loftr_ros'

ALLOWED = {
    'errors': set(),
    'settings': {'errors'},
    'config': {'settings'},
    'parameter_files': {'errors', 'config', 'settings'},
    'runtime': set(),
    'immutable': {'errors'},
    'camera': {'errors', 'immutable'},
    'datatypes': {'errors', 'camera', 'immutable'},
    'output_files': {'errors'},
    'levels': {'errors'},
    'image': {'errors', 'datatypes'},
    'image_files': {'errors', 'image', 'levels'},
    'geometry': {'errors', 'camera', 'datatypes'},
    'exports': {'errors', 'camera', 'datatypes', 'image', 'output_files'},
    'rendering': {'errors', 'camera', 'datatypes', 'geometry', 'image'},
    'datasets': {
        *('errors', 'camera', 'datatypes', 'geometry', 'image', 'image_files', 'output_files', 'rendering'),
        'messages',
        'sync',
        'transforms',
    },
    'transforms': {'errors', 'geometry'},
    'depth': {'camera', 'datatypes', 'geometry'},
    'pose': {'errors', 'camera', 'datatypes', 'config', 'geometry', 'image', 'transforms'},
    'networks': {'errors', 'networks'},
    'weights': {'errors', 'networks', 'output_files'},
    'camera_messages': {'errors', 'camera'},
    'messages': {'errors', 'camera', 'camera_messages', 'datatypes', 'geometry', 'levels'},
    'sync': set(),
    'speeds': {'errors', 'messages'},
    'matchers': {'errors', 'datatypes', 'config', 'image', 'networks', 'weights', 'matchers', 'output_files'},
    'odometry': {
        'errors',
        'camera',
        'datatypes',
        'config',
        'depth',
        'geometry',
        'image',
        'pose',
        'matchers',
        'odometry',
        'transforms',
    },
    'integrations': {'errors', 'camera', 'datatypes', 'geometry', 'transforms'},
    'training': {
        *(
            'errors',
            'settings',
            'networks',
            'weights',
            'geometry',
            'image',
            'rendering',
            'camera',
            'datatypes',
            'training',
        ),
        *('image_files', 'output_files', 'datasets'),
    },
}
"""What each part may import of the package, beside itself."""

ON_TOP = {'', 'api', 'evaluation', 'ros', 'commands', 'cli'}
"""Parts that may import all others but those of MAY_IMPORT_TOP; '' is `loftr_ros/__init__.py`."""

MAY_IMPORT_TOP = {
    'api': {''},
    'cli': set(),
    'commands': {'cli'},
    'ros': {'commands'},
    'training': {'commands'},
    'msg': {'ros', 'commands'},
}
"""Who may import the parts that a library user does not need."""


def module_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(source: str) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it.

    A string that names a module ('package.module' or 'package.module:attribute') counts in a table or as an argument of
    import_module. As an argument of another call it does not: that is a program to start, or a logger.
    """
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    other = [call for call in calls if getattr(call.func, 'attr', getattr(call.func, 'id', '')) != 'import_module']
    skipped = {id(argument) for call in other for argument in call.args}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{"." * node.level}{node.module or ""}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            names |= {node.value.partition(':')[0]} if re.fullmatch(r'\w+(\.\w+)+(:\w+)?', node.value) else set()
    return names


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return the modules of the package that each of its modules imports; `from package import module` is `module`."""
    files = {module_of(file, package.parent): file for file in sorted(package.rglob('*.py'))}
    graph = {}
    for module, file in files.items():
        graph[module] = set()
        for name in imported_names(file.read_text()):
            while name and name not in files:
                name = name.rpartition('.')[0]
            graph[module] |= {name} - {'', module}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return a path of a directed graph that ends where it began, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


GRAPH = import_graph(PACKAGE)


def part_of(module: str) -> str:
    """Return the folder or file of the package that a module belongs to."""
    return module.split('.')[1] if '.' in module else ''


def test_every_import_follows_the_arrows():
    wrong = []
    for module, targets in GRAPH.items():
        part = part_of(module)
        assert part in ALLOWED or part in ON_TOP, f'{part} is new: give it a place in this table'
        for target in targets:
            other = part_of(target)
            forbidden = part in ALLOWED and other not in ALLOWED[part]
            if other != part and (forbidden or part not in MAY_IMPORT_TOP.get(other, {part})):
                wrong.append(f'{module} imports {target}')
    assert not wrong, '\n'.join(wrong)


def test_no_imports_form_a_circle():
    assert not circle(GRAPH), ' imports '.join(circle(GRAPH))


def test_the_parts_form_no_circle():
    parts = {}
    for module, targets in GRAPH.items():
        parts.setdefault(part_of(module), set()).update(map(part_of, targets))
    graph = {part: targets - {part} for part, targets in parts.items()}
    assert not circle(graph), ' imports '.join(circle(graph))


def test_no_import_is_relative():
    wrong = [file for file in PACKAGE.rglob('*.py') if any(n.startswith('.') for n in imported_names(file.read_text()))]
    assert not wrong, 'this test reads absolute imports only'


def test_a_circle_through_a_table_of_names_is_found(tmp_path):
    package = tmp_path / 'box'
    package.mkdir()
    (package / '__init__.py').write_text("TABLE = {'first': ('box.a:First', 'help')}\n")
    (package / 'a.py').write_text('def late():\n    from box import b\n')
    (package / 'b.py').write_text("start('box.a')\nname = 'box.a is no name'\n")
    assert import_graph(package) == {'box': {'box.a'}, 'box.a': {'box.b'}, 'box.b': set()}
    assert not circle(import_graph(package))
    (package / 'b.py').write_text("importlib.import_module('box.a')\n")
    assert sorted(circle(import_graph(package))[1:]) == ['box.a', 'box.b']
    (package / 'b.py').write_text('from box import TABLE\n')
    assert sorted(circle(import_graph(package))[1:]) == ['box', 'box.a', 'box.b']


def test_only_the_ros_folder_imports_ros():
    ros = ('rclpy', 'rcl_interfaces', 'sensor_msgs', 'std_msgs', 'geometry_msgs', 'diagnostic_msgs', 'rosgraph_msgs')
    wrong = [
        f'{file.relative_to(PACKAGE)} imports {name}'
        for file in sorted(PACKAGE.rglob('*.py'))
        for name in imported_names(file.read_text())
        if name.split('.')[0] in (*ros, 'cv_bridge', 'message_filters') and file.relative_to(PACKAGE).parts[0] != 'ros'
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
