"""A file is written completely or not at all, and a file that could not be written is an error."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from loftr_ros.cli import main
from loftr_ros.errors import OutputError
from loftr_ros.image_files import read_image
from loftr_ros.output_files import write_image, writing

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)


def blocked(folder, kind, suffix='.png'):
    """Return a place where no file can be written, whoever runs the test."""
    if kind == 'folder':
        (folder / f'there{suffix}').mkdir()
        return folder / f'there{suffix}'
    (folder / 'file').write_text('a file')
    return folder / 'file' / f'below{suffix}'


@pytest.mark.parametrize('kind', ['folder', 'below a file'])
def test_an_image_that_cannot_be_written_is_an_error_that_names_it(tmp_path, kind):
    place = blocked(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=f'cannot write {place}: '):
        write_image(place, IMAGE)
    assert sorted(tmp_path.iterdir()) == before  # no unfinished file


def test_an_image_that_was_written_is_read_again_and_folders_are_made(tmp_path):
    write_image(tmp_path / 'new' / 'a.png', IMAGE)
    np.testing.assert_array_equal(read_image(tmp_path / 'new' / 'a.png'), IMAGE)
    assert [file.name for file in (tmp_path / 'new').iterdir()] == ['a.png']


@pytest.mark.parametrize('suffix', ['', '.xyz'])
def test_a_format_that_is_not_known_is_an_error(tmp_path, suffix):
    with pytest.raises(OutputError, match='cannot write'):
        write_image(tmp_path / f'a{suffix}', IMAGE)


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    (tmp_path / 'a.csv').write_text('old')
    with pytest.raises(OutputError, match='No space left'), writing(tmp_path / 'a.csv') as file:
        file.write_text('half')
        raise OSError(28, 'No space left on device')
    with pytest.raises(KeyError), writing(tmp_path / 'a.csv') as file:
        file.write_text('half')
        raise KeyError('a fault of the program is no OutputError')
    assert (tmp_path / 'a.csv').read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_a_link_and_a_new_file_is_readable_like_any_other(tmp_path):
    (tmp_path / 'target.csv').write_text('old')
    (tmp_path / 'link.csv').symlink_to('target.csv')
    with writing(tmp_path / 'link.csv') as file:
        file.write_text('new')
    (tmp_path / 'plain').write_text('')
    assert (tmp_path / 'link.csv').is_symlink() and (tmp_path / 'target.csv').read_text() == 'new'
    assert (tmp_path / 'target.csv').stat().st_mode == (tmp_path / 'plain').stat().st_mode


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_a_device_file_is_written_directly_and_a_full_one_is_an_error():
    with pytest.raises(OutputError, match='cannot write /dev/full: No space left'), writing('/dev/full') as file:
        file.write_text('numbers')
    assert Path('/dev/full').is_char_device()


@pytest.mark.parametrize('kind', ['folder', 'below a file'])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.npz', '.csv'])
def test_the_command_match_fails_when_its_file_cannot_be_written(tmp_path, capsys, kind, suffix):
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.resize(IMAGE, (96, 64)))
    place = blocked(tmp_path, kind, suffix)
    images = [str(tmp_path / 'a.png')] * 2
    assert main(['match', *images, '-o', str(place), '--set', 'matcher.name=gcm', 'matcher.device=cpu']) == 1
    captured = capsys.readouterr()
    assert f'loftr_ros match: cannot write {place}' in captured.err and 'wrote' not in captured.out


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.npz', '.csv'])
def test_the_command_match_writes_what_it_says(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.resize(IMAGE, (96, 64)))
    place = tmp_path / 'new' / f'out{suffix}'
    images = [str(tmp_path / 'a.png')] * 2
    assert main(['match', *images, '-o', str(place), '--set', 'matcher.name=gcm', 'matcher.device=cpu']) == 0
    assert [file.name for file in place.parent.iterdir()] == [place.name] and place.stat().st_size > 0


@pytest.mark.parametrize('kind', ['folder', 'below a file'])
def test_the_command_weights_convert_fails_when_its_file_cannot_be_written(tmp_path, capsys, kind):
    place = blocked(tmp_path, kind, '.safetensors')
    assert main(['weights', 'convert', 'loftr_small', str(place)]) == 1
    assert f'cannot write {place}' in capsys.readouterr().err


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
@pytest.mark.parametrize('command', [['parameters'], ['parameters', '--markdown'], ['weights', 'list']])
def test_a_full_standard_output_is_an_error(command):
    with open('/dev/full', 'w') as full:
        result = subprocess.run(
            [sys.executable, '-m', 'loftr_ros.cli', *command], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode != 0 and 'No space left' in result.stderr and 'Traceback' not in result.stderr
