"""Data workers of the training loop: stopped, failed and killed ones, and the same run as without them."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_training_loop import ROOT, Shifts, column, efficient, settings

from loftr_ros.errors import InputError, TrainingError
from loftr_ros.training import loading
from loftr_ros.training.batch import Pair
from loftr_ros.training.loading import Batches, load, worker_death_as_error
from loftr_ros.training.loop import train


class StopWhileWorking(Shifts):
    """Sends the training process SIGTERM from its worker, which is then at work on a large batch."""

    def __getitem__(self, index):
        if index == 4:
            os.kill(os.getppid(), signal.SIGTERM)
        if index < 6:
            return super().__getitem__(index)
        time.sleep(0.5)
        return Pair(*(np.zeros((1024, 1024, *rest), kind) for rest, kind in [((), np.uint8)] * 2 + [((2,), 'f4')] * 2))


STOPPED_WITH_A_WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {test!r}]
from loftr_ros.training.loading import Batches, load, worker_death_as_error
from loftr_ros.training.loop import train
from test_training_loop import efficient, settings
from test_training_workers import StopWhileWorking
if __name__ == '__main__':
    train(efficient(), settings(workers=1, threads=1), Path({folder!r}), StopWhileWorking(), progress=False)
"""


def test_a_run_stopped_by_sigterm_while_its_worker_works_prints_nothing(tmp_path):
    program = tmp_path / 'stopped.py'
    program.write_text(
        STOPPED_WITH_A_WORKER.format(root=str(ROOT), test=str(ROOT / 'test'), folder=str(tmp_path / 'run'))
    )
    result = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, '')
    assert (tmp_path / 'run' / 'last.pt').exists()


class Failing(Shifts):
    """Its pair 5 cannot be made, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def __getitem__(self, index):
        if index == 5 and self.way == 'words':
            raise InputError('this file is broken')
        if index == 5 and self.way == 'not sent':
            raise type('Local', (Exception,), {'__init__': lambda self, a, b: None})(1, 2)
        if index == 5 and self.way == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


FAILED_IN_A_WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {test!r}]
from loftr_ros.errors import LoftrRosError
from loftr_ros.training.loading import Batches, load, worker_death_as_error
from loftr_ros.training.loop import train
from test_training_loop import Shifts, efficient, settings
from test_training_workers import Failing
if __name__ == '__main__':
    way = {way!r}
    rate = 1e30 if way == 'diverged' else 2e-3
    try:
        train(
            efficient(), settings(workers=1, threads=1, steps=40, learning_rate=rate), Path({folder!r}), Failing(way),
            progress=False,
        )
    except LoftrRosError as error:
        kept = error  # as a caller may; its traceback keeps all frames of the loop
        sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ('way', 'message'),
    [
        ('words', 'a training pair could not be made: this file is broken'),
        ('not sent', 'a training pair could not be made: Local: '),
        ('killed', 'a data worker ended by itself'),
        ('diverged', 'the training diverged'),
    ],
)
def test_a_failure_while_a_worker_works_ends_the_process_with_a_message(tmp_path, way, message):
    program = tmp_path / 'failed.py'
    program.write_text(
        FAILED_IN_A_WORKER.format(root=str(ROOT), test=str(ROOT / 'test'), folder=str(tmp_path / 'run'), way=way)
    )
    # Hanging is the fault that is looked for; importing torch twice takes seconds.
    result = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert message in result.stderr and 'Traceback' not in result.stderr


def test_a_worker_that_dies_at_any_time_ends_the_run_with_a_message():
    batches = Batches(Shifts(), 0, 2, 2, 100)
    with (
        pytest.raises(TrainingError, match='a data worker ended by itself'),
        worker_death_as_error(),
        contextlib.closing(load(batches, 1, False)) as loaded,
    ):
        next(loaded)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(20)  # a step of the training; the signal of the worker's death interrupts it
        pytest.fail('nothing interrupted the step')


@pytest.mark.parametrize('error', [ConnectionResetError(104, 'reset'), EOFError(), FileNotFoundError(2, 'gone')])
def test_a_worker_that_dies_while_it_sends_a_batch_ends_the_run_with_a_message(error, monkeypatch):
    def dying(*_, **__):
        yield from ()
        raise error

    monkeypatch.setattr(loading, 'DataLoader', dying)
    with pytest.raises(TrainingError, match='a data worker ended by itself'):
        next(load(Batches(Shifts(), 0, 2, 2, 100), 0, False))


def test_workers_give_the_same_run_as_none(tmp_path):
    for workers in (0, 2):
        train(efficient(), settings(workers=workers, steps=3), tmp_path / str(workers), Shifts(), progress=False)
    assert column(tmp_path / '0', 'loss') == column(tmp_path / '2', 'loss')
