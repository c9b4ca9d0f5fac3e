"""Where the jobs of an evaluation run: results in order, workers that die, and the same bytes as without workers."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import pytest

from loftr_ros import cli
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.errors import InputError, WorkerError
from loftr_ros.evaluation import backends, jobs
from loftr_ros.evaluation.backends import Processes, Serial, create_backend

# --- jobs, which a worker imports from here --------------------------------------------------------------------------


def square(number, pause_s, progress):
    for done in range(3):
        time.sleep(pause_s / 3)
        progress(done + 1)
    return number**2


def die(marks, tries, progress):
    """Kill the worker at each of the first tries, then return the number of tries."""
    progress(1)
    count = len(list(marks.iterdir()))
    (marks / str(count)).touch()
    if count < tries:
        os.kill(os.getpid(), signal.SIGKILL)
    return count + 1


def fail(error, progress):
    raise error


def wait_forever(file, progress):
    file.write_text(str(os.getpid()))
    progress(1)
    time.sleep(600)


# --- backends --------------------------------------------------------------------------------------------------------


def ignore(number, done):
    pass


@pytest.mark.parametrize('backend', [Serial(), Processes(2, True)], ids=['serial', 'processes'])
def test_results_come_in_order_and_progress_is_reported(backend):
    reported = {}
    pauses = [0.3, 0, 0, 0]  # the first one ends last
    found = backend.run([partial(square, number, pause) for number, pause in enumerate(pauses)], reported.__setitem__)
    assert list(found) == [0, 1, 4, 9] and reported == dict.fromkeys(range(4), 3)
    assert list(backend.run([], ignore)) == []
    assert not multiprocessing.active_children()


def test_the_job_of_a_killed_worker_is_done_again(tmp_path):
    work = [partial(square, 1, 0), partial(die, tmp_path, 1), *(partial(square, number, 0.1) for number in (2, 3))]
    assert list(Processes(2, True).run(work, ignore)) == [1, 2, 4, 9]


def test_a_job_that_kills_every_worker_is_an_error(tmp_path):
    found = Processes(2, True).run([partial(square, 3, 0), partial(die, tmp_path, 99)], ignore)
    assert next(found) == 9
    with pytest.raises(WorkerError, match='3 workers died in the same job, the last one by signal 9'):
        next(found)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_error_of_a_job_is_that_of_the_evaluation():
    with pytest.raises(InputError, match='broken image'):
        next(Processes(2, True).run([partial(fail, InputError('broken image'))], ignore))
    with pytest.raises(ZeroDivisionError) as caught:
        next(Processes(2, True).run([partial(fail, ZeroDivisionError())], ignore))
    assert caught.value.__traceback__ is not None


def test_workers_end_with_the_evaluation(tmp_path):
    files = [tmp_path / 'a', tmp_path / 'b']
    found = Processes(2, True).run([partial(wait_forever, file) for file in files], stop)
    with contextlib.closing(found), pytest.raises(KeyboardInterrupt):
        next(found)
    assert any(file.exists() for file in files)
    assert not multiprocessing.active_children()


def stop(number, done):
    raise KeyboardInterrupt


def test_no_more_processes_are_started_than_the_memory_is_enough_for(monkeypatch, caplog):
    monkeypatch.setattr(backends, '_available_bytes', lambda: 3 * backends.WORKER_BYTES)
    assert create_backend('processes', 2, True).count == 2 and not caplog.messages
    assert create_backend('processes', 8, True).count == 3
    assert caplog.messages == ['--jobs 8: the memory that is free is enough for 3']
    monkeypatch.setattr(backends, '_available_bytes', lambda: 0)
    assert isinstance(create_backend('processes', 8, True), Serial)
    assert isinstance(create_backend('processes', None, True), Serial)


def test_the_memory_of_this_machine_is_read():
    assert 1 << 20 < backends._available_bytes() < 1 << 62


def test_a_cluster_needs_ray_and_a_number_of_workers_that_can_be(monkeypatch):
    with pytest.raises(InputError, match='--jobs must be 1 or more, got 0'):
        create_backend('ray', 0, True)
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ImportError, match=r'pip install loftr_ros\[ray\]'):
        create_backend('ray', 2, True)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Two drives of 4 frames."""
    parent = tmp_path_factory.mktemp('drives')
    for seed in (1, 2):
        save_sequence(rendered_drive(seed=seed, num_frames=4, size=(320, 240)), parent / f'drive{seed}')
    return [parent / f'drive{seed}' for seed in (1, 2)]


def evaluate(*arguments) -> int:
    return cli.main(['evaluate', *map(str, arguments)])


SAME_FILES = 'pairs.csv', 'frames.csv', 'summary.json', 'trajectory.tum', 'trajectory.kitti', 'truth.tum', 'config.yaml'


def assert_same_results(first, second):
    """All that does not depend on the speed of the machine."""
    found, other = ({path.relative_to(folder): path for path in folder.rglob('*')} for folder in (first, second))
    assert found.keys() == other.keys() and len(found) > 6
    for name, path in found.items():
        if name.name in SAME_FILES:
            assert path.read_bytes() == other[name].read_bytes(), name


def test_processes_write_the_same_bytes_as_one(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, 'SEGMENT', 2)  # of 3 pairs
    for folder, more in ((tmp_path / 'serial', []), (tmp_path / 'processes', ['--jobs', 2])):
        assert evaluate(*folders, '--matchers', 'orb+lk', '-o', folder, *more) == 0
    assert_same_results(tmp_path / 'serial', tmp_path / 'processes')
    assert all((tmp_path / 'serial' / folder.name / 'orb+lk' / 'report.html').is_file() for folder in folders)
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith('drive2:')]
    assert 'a folder for each source, with a folder for each matcher' in printed


def test_processes_compute_the_same_trajectories_as_one(folders, tmp_path):
    arguments = [folders[0], '--odometry', 'stereo', '--matchers', 'sift', 'orb', '-o']
    assert evaluate(*arguments, tmp_path / 'serial') == 0
    assert evaluate(*arguments, tmp_path / 'processes', '--jobs', 2) == 0
    assert_same_results(tmp_path / 'serial', tmp_path / 'processes')


def test_segments_contain_each_pair_once():
    assert jobs.segments(120, True) == [range(50), range(50, 100), range(100, 120)]
    assert jobs.segments(120, False) == [range(120)] and jobs.segments(100, True)[-1] == range(50, 100)


def test_sources_whose_results_would_be_mixed_are_refused(folders, tmp_path, capsys):
    assert evaluate(folders[0], folders[0]) == 1
    assert "two of ['drive1', 'drive1'] are equal" in capsys.readouterr().err
    (tmp_path / 'truth.tum').touch()
    assert evaluate(*folders, '--odometry', 'mono', '--truth', tmp_path / 'truth.tum') == 1
    assert 'is the truth of one source, got 2' in capsys.readouterr().err
