"""Batches made by worker processes. Their failures become error messages, and workers end with the loop."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from loftr_ros.errors import LoftrRosError, TrainingError
from loftr_ros.training.batch import PairBatch, collate


class Loaded(NamedTuple):
    """A batch, or the reason why it could not be made."""

    batch: PairBatch | None
    left_out: dict[str, str]  # files that could not be read, with the reason, without those of earlier batches
    failure: str


class Batches(Dataset):
    """Item n is `size` pairs, from `first + n * stride` on, as Loaded.

    An exception becomes a text: DataLoader would mix the tracebacks of both processes, and not every exception can be
    pickled.
    """

    def __init__(self, pairs, first: int, stride: int, size: int, count: int):
        self.pairs, self.first, self.stride, self.size, self.count = pairs, first, stride, size, count
        self.num_reported = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Loaded:
        first = self.first + number * self.stride
        batch, failure = None, ''
        try:
            batch = collate([self.pairs[index] for index in range(first, first + self.size)])
        except LoftrRosError as error:
            failure = str(error)
        except Exception as error:  # from a data set, from OpenCV, or out of memory: the run ends with any of them
            place = traceback.extract_tb(error.__traceback__)[-1]
            failure = f'{type(error).__name__}: {error} ({place.filename}:{place.lineno})'
        left_out = list(getattr(self.pairs, 'left_out', {}).items())[self.num_reported :]
        self.num_reported += len(left_out)
        return Loaded(batch, {str(path): reason for path, reason in left_out}, failure)


def load(batches: Batches, workers: int, pin_memory: bool) -> Iterator[Loaded]:
    """Yield every item of `batches` in order, made by `workers` processes or, for 0, in this one.

    Close the generator (contextlib.closing): that ends the workers. Use it inside `worker_death_as_error`.

    Raises:
        TrainingError: an item could not be made.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        # With fork, OpenCV in a worker would wait forever for threads that it does not have.
        multiprocessing_context='spawn' if workers else None,
    )
    iterator = iter(loader)
    try:
        while (loaded := _receive(iterator)) is not None:
            if loaded.failure:
                raise TrainingError(f'a training pair could not be made: {loaded.failure}')
            yield loaded
    finally:
        _end_workers(iterator)


@contextlib.contextmanager
def worker_death_as_error() -> Iterator[None]:
    """Raise TrainingError if torch reports that a worker died; use it around all code that runs while workers do.

    torch reports it in the handler of SIGCHLD: the exception can come from any line of the main thread.
    """
    try:
        yield
    except RuntimeError as error:
        if 'DataLoader worker' not in str(error):
            raise
        raise _worker_death(error) from error


def _receive(iterator) -> Loaded | None:
    try:
        return next(iterator, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # The memory of a batch comes over a socket of its worker, which can die between the two.
        raise _worker_death(error) from error


def _worker_death(error: Exception) -> TrainingError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TrainingError(
        f'a data worker ended by itself ({reason}); often memory was full: lower data.workers or the size of the '
        'images; the same command continues from the last checkpoint'
    )


def _end_workers(iterator) -> None:
    # Without this they end when the iterator is deleted, which the traceback of an exception prevents. And Python would
    # wait for them forever at exit, because they ignore its SIGTERM.
    workers = getattr(iterator, '_workers', ())
    try:
        if workers:
            iterator._shutdown_workers()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()


def _as_it_is(item: Loaded) -> Loaded:
    return item


def _start_worker(_number: int) -> None:
    import cv2

    cv2.setNumThreads(1)  # the other cores train
    torch.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the training process ends its workers, after the checkpoint
    # The thread that sends batches may be inside torch when the worker ends. Python then unwinds it through C++, which
    # aborts the process. All batches have been sent by now, and a worker has no other state to save.
    atexit.register(os._exit, 0)
