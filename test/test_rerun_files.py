"""Files for the viewer of rerun, read by its own program; and what is said without it."""

import subprocess
import sys

import pytest

from loftr_ros import cli
from loftr_ros.datasets import rendered_drive, save_sequence


@pytest.fixture
def folder(tmp_path):
    save_sequence(rendered_drive(seed=1, num_frames=4, size=(320, 240)), tmp_path / 'drive')
    return tmp_path / 'drive'


@pytest.mark.parametrize('mode', [[], ['--odometry', 'stereo']], ids=['pairs', 'odometry'])
def test_without_rerun_nothing_is_computed(mode, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    arguments = ['evaluate', str(folder), *mode, '--export', 'rrd']
    assert cli.main(arguments) == 1
    assert '--export needs a folder' in capsys.readouterr().err
    assert cli.main([*arguments, '-o', str(tmp_path / 'out')]) == 1
    assert 'pip install loftr_ros[rerun]' in capsys.readouterr().err and not (tmp_path / 'out').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('mode', 'expected'),
    [
        ([], ['/pairs/best/images', '/pairs/median/good', '/pairs/worst/bad']),
        (
            ['--odometry', 'stereo'],
            [
                *('/world/estimated/path', '/world/estimated/camera', '/world/truth/path', '/frames/inliers'),
                '/pairs/with\\ the\\ most\\ inliers/good',
            ],
        ),
    ],
    ids=['pairs', 'odometry'],
)
def test_the_file_has_what_the_report_shows(mode, expected, folder, tmp_path):
    pytest.importorskip('rerun', reason='needs rerun-sdk: make test-slow installs it')
    arguments = ['evaluate', str(folder), *mode, '--matchers', 'orb+lk', '--export', 'rrd', '-o', str(tmp_path / 'out')]
    assert cli.main(arguments) == 0
    file = tmp_path / 'out' / 'orb+lk' / 'report.rrd'
    checked = [sys.executable, '-m', 'rerun', 'rrd', 'print', str(file)]
    printed = subprocess.run(checked, capture_output=True, text=True, timeout=120, check=True).stdout
    assert [path for path in expected if path not in printed] == []
