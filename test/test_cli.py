"""The command line, run in separate processes."""

import csv
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest

from loftr_ros import cli
from loftr_ros.commands import doctor
from loftr_ros.config import Config
from loftr_ros.parameter_files import to_yaml
from loftr_ros.rendering import textures


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two images that differ by a shift of (12, 5) px."""
    folder = tmp_path_factory.mktemp('images')
    scene = textures.poster(np.random.default_rng(0), 380, 280)
    cv2.imwrite(str(folder / 'a.png'), scene[20:260, 30:350])
    cv2.imwrite(str(folder / 'b.png'), scene[15:255, 18:338])
    return folder / 'a.png', folder / 'b.png'


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'loftr_ros.cli', *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_match_writes_arrays_with_the_true_shift(images, tmp_path):
    ended = run('match', *images, '-o', tmp_path / 'out' / 'm.npz')
    assert ended.returncode == 0, ended.stderr
    arrays = np.load(tmp_path / 'out' / 'm.npz')
    assert set(arrays) == {'keypoints0', 'keypoints1', 'confidence', 'sigma_px'}
    shift = arrays['keypoints1'] - arrays['keypoints0']
    assert len(shift) > 100
    # A whole-pixel shift of the same pixels; sub-pixel noise stays below a quarter pixel.
    assert np.median(np.abs(shift - [12, 5])) < 0.25


def test_match_writes_a_table_and_a_picture(images, tmp_path):
    for name in ('m.csv', 'm.png'):
        assert (
            cli.main(['match', *map(str, images), '-o', str(tmp_path / name), '--set', 'matcher.max_matches=40']) == 0
        )
    with (tmp_path / 'm.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) <= 40 and {'x0_px', 'y1_px', 'confidence'} <= set(rows[0])
    picture = cv2.imread(str(tmp_path / 'm.png'))
    assert picture.shape[1] >= 640 and picture.shape[0] >= 240


def test_match_reads_a_parameter_file_and_set_wins(images, tmp_path, capsys):
    (tmp_path / 'c.yaml').write_text(to_yaml(Config()).replace('max_matches: 1000', 'max_matches: 7'))
    assert cli.main(['match', *map(str, images), '--config', str(tmp_path / 'c.yaml')]) == 0
    assert capsys.readouterr().out.startswith('7 matches')
    arguments = ['--config', str(tmp_path / 'c.yaml'), '--set', 'matcher.max_matches=5', 'matcher.gcm.align=false']
    assert cli.main(['match', *map(str, images), *arguments]) == 0
    assert capsys.readouterr().out.startswith('5 matches')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--set', 'matcher.nam=gcm'], 'did you mean matcher.name?'),
        (['--set', 'matcher.name=lofter'], 'known are'),
        (['-o', 'out.tiff'], 'must end in one of'),
        (['--config', 'absent.yaml'], 'cannot read the parameter file'),
    ],
)
def test_mistakes_are_answered_in_one_line_without_a_traceback(images, arguments, words):
    ended = run('match', *images, *arguments)
    assert ended.returncode == 1 and words in ended.stderr and 'Traceback' not in ended.stderr


def test_a_file_that_is_no_image_is_named(images, tmp_path, capsys):
    (tmp_path / 'text.png').write_text('no image')
    assert cli.main(['match', str(images[0]), str(tmp_path / 'text.png')]) == 1
    assert 'text.png is not an image' in capsys.readouterr().err
    assert cli.main(['match', str(images[0]), str(tmp_path / 'absent.png')]) == 1
    assert 'absent.png is not a file' in capsys.readouterr().err


@pytest.fixture
def only_packages(monkeypatch):
    """Return a function that lets doctor look at one package alone, and ROS be there."""
    monkeypatch.setattr(doctor, '_report_ros', lambda: True)

    def only(*package):
        monkeypatch.setattr(doctor, 'PACKAGES', [package])

    return only


@pytest.mark.parametrize('package', doctor.PACKAGES, ids=lambda package: package[0])
def test_doctor_names_a_missing_package_and_fails_where_the_node_needs_it(package, only_packages, monkeypatch, capsys):
    module, *_, needed, remedy = package
    only_packages(*package)
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(['doctor']) == int(needed)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f'{module} '))
    assert f'{"MISSING" if needed else "absent"}: ' in line and remedy in line


@pytest.mark.parametrize(
    ('version', 'oldest', 'status', 'words'),
    [
        ('1.9.9', '1.10', 1, 'MISSING: 1.9.9 is too old'),
        ('1.10', '1.10', 0, ' 1.10'),
        ('2.13.0+cpu', '2.1', 0, ' 2.13.0+cpu'),
        ('v1.9.0', '1.6', 0, ' v1.9.0'),
    ],
)
def test_doctor_compares_versions_by_their_numbers(version, oldest, status, words, only_packages, monkeypatch, capsys):
    only_packages('theirs', 'theirs', oldest, 'a test', True, 'pip install theirs')
    monkeypatch.setitem(sys.modules, 'theirs', types.SimpleNamespace(__version__=version))
    assert cli.main(['doctor']) == status
    printed = capsys.readouterr().out
    assert words in printed and ('the node can run' in printed) == (status == 0)


@pytest.mark.parametrize('module', ['numpy', 'cv2', 'torch', 'yaml'])
def test_doctor_runs_and_other_commands_point_to_it_where_a_package_is_missing(module, images):
    code = 'import sys; sys.modules[sys.argv.pop(1)] = None; from loftr_ros.cli import main; sys.exit(main())'
    ended = subprocess.run([sys.executable, '-c', code, module, 'doctor'], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and 'Traceback' not in ended.stderr
    assert any(line.startswith(f'{module} ') and 'MISSING' in line for line in ended.stdout.splitlines())
    ended = subprocess.run(
        [sys.executable, '-c', code, module, 'match', *map(str, images), '--set', 'matcher.max_matches=9'],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1 and '`loftr_ros doctor`' in ended.stderr and 'Traceback' not in ended.stderr


def test_doctor_fails_without_ros_and_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'PACKAGES', [])
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    assert cli.main(['doctor']) == 1
    assert 'rclpy         MISSING' in (printed := capsys.readouterr().out) and 'setup.bash' in printed


def test_parameters_prints_what_is_shipped(capsys):
    assert cli.main(['parameters']) == 0
    assert capsys.readouterr().out == to_yaml(Config())
