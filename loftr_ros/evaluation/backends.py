"""Where the jobs of an evaluation run: in this process, in several on this machine, or on a cluster of Ray.

A job is picklable and is called with a function, to which it tells the number of frames that are done. The results come
in the order of the jobs. A job whose worker died (killed, out of memory, machine lost) is done again, by another one.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from loftr_ros.errors import InputError, LoftrRosError, MissingDependencyError, WorkerError
from loftr_ros.runtime import prepare_process

logger = logging.getLogger(__name__)

BACKENDS = 'processes', 'ray'
TRIES = 3
"""Number of workers that may die in the same job."""

WORKER_BYTES = 3 << 29
"""Memory of a worker: the matcher `default` has 0.5 GB for 1920x1440, `gcm` 0.8 GB, LoFTR more; and two images."""

POLL_S = 0.2
"""Time between two looks at the progress of a cluster."""

Job = Callable[[Callable[[int], None]], Any]
Report = Callable[[int, int], None]
"""Called with the number of a job, and of its frames that are done: fewer than before if the job is done again."""


class Backend(Protocol):
    splits: bool
    """Whether it is worth while to give it smaller jobs: it does several at the same time."""

    def run(self, jobs: Sequence[Job], report: Report) -> Iterator[Any]:
        """Yield the results in order; jobs that are not needed any more end when the iterator is closed.

        Raises:
            WorkerError: TRIES workers died in the same job.
            Exception: that of a job.
        """


def create_backend(name: str, count: int | None, keep_memory: bool) -> Backend:
    """Return a backend.

    Args:
        name: one of BACKENDS.
        count: number of workers. None: 1; of a cluster, as many as it has room for.
        keep_memory: as of prepare_process, for each worker.

    Raises:
        InputError: there cannot be that number of workers.
        MissingDependencyError: Ray is not installed.
    """
    if count is not None and count < 1:
        raise InputError(f'--jobs must be 1 or more, got {count}')
    if name == 'ray':
        return RayCluster(count, keep_memory)
    count = count or 1
    fitting = _available_bytes() // WORKER_BYTES
    if count > max(fitting, 1):
        logger.warning('--jobs %d: the memory that is free is enough for %d', count, max(fitting, 1))
        count = max(fitting, 1)
    return Processes(count, keep_memory) if count > 1 else Serial()


def _available_bytes() -> int:
    """Return the memory that this machine can give to new processes, or a container; a lot where it is unknown."""
    limits = [1 << 62]
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        limits += [int(line.split()[1]) << 10 for line in lines if line.startswith('MemAvailable')]
        limits.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))
    except (OSError, ValueError):  # no Linux, no container, or one without a limit: `max`
        pass
    return min(limits)


class Serial:
    """One job after the other, in this process."""

    splits = False

    def run(self, jobs: Sequence[Job], report: Report) -> Iterator[Any]:
        for number, job in enumerate(jobs):
            yield job(partial(report, number))


class _Worker(NamedTuple):
    process: Any  # of multiprocessing
    number: int  # of its job


class Processes:
    """Processes on this machine.

    Each has as many threads as this one, since the results of a network depend on that number in the last bits.
    """

    splits = True

    def __init__(self, count: int, keep_memory: bool):
        self.count, self.keep_memory = count, keep_memory

    def run(self, jobs: Sequence[Job], report: Report) -> Iterator[Any]:
        waiting = collections.deque(range(len(jobs)))
        started = []
        busy: dict[Connection, _Worker] = {}
        results: dict[int, Any] = {}
        deaths: collections.Counter[int] = collections.Counter()

        def give(connection: Connection, process) -> None:
            """Give a worker the next job, or let it end."""
            busy.pop(connection, None)
            if not waiting:
                connection.close()
                return
            busy[connection] = _Worker(process, waiting.popleft())
            with contextlib.suppress(OSError):  # it died: reading from it says so below
                connection.send(jobs[busy[connection].number])

        try:
            for wanted in range(len(jobs)):
                while wanted not in results:
                    while waiting and len(busy) < self.count:
                        connection, process = _start(self.keep_memory)
                        started.append(process)
                        give(connection, process)
                    for connection in wait(list(busy)):
                        process, number = busy[connection]
                        try:
                            kind, content = connection.recv()
                        except (EOFError, OSError):  # OSError: in the middle of an answer
                            del busy[connection]
                            waiting.appendleft(number)
                            deaths[number] += 1
                            _judge_death(process, deaths[number])
                            continue
                        if kind == 'progress':
                            report(number, content)
                            continue
                        if kind == 'error':
                            raise content
                        results[number] = content
                        give(connection, process)
                yield results.pop(wanted)
        finally:
            for process, _ in busy.values():
                process.kill()
            for process in started:  # the others end by themselves: their connection is closed
                process.join()


def _start(keep_memory: bool) -> tuple[Connection, Any]:
    """Start a worker, and return the connection to it and its process."""
    # A fork would copy locks of torch's and OpenCV's threads, but not the threads.
    context = multiprocessing.get_context('spawn')
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, keep_memory), daemon=True)
    process.start()
    there.close()  # then `here` ends when the worker dies
    return here, process


def _judge_death(process, count: int) -> None:
    process.join()
    how = f'signal {-process.exitcode}' if process.exitcode < 0 else f'exit status {process.exitcode}'
    if count >= TRIES:
        raise WorkerError(
            f'{count} workers died in the same job, the last one by {how}; if it is 9, memory may be short: try fewer '
            '--jobs'
        )
    logger.warning('a worker died by %s; its job is done again', how)


def _work(connection: Connection, keep_memory: bool) -> None:
    """Do the jobs that come, and send what they return, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    prepare_process(keep_memory)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            answer = 'result', job(lambda done: connection.send(('progress', done)))
        except Exception as error:
            if not isinstance(error, LoftrRosError):
                error.__cause__ = RuntimeError(f'in a worker:\n{traceback.format_exc()}')
            answer = 'error', error
        connection.send(answer)


class RayCluster:
    """Workers on a cluster of Ray: that of the variable RAY_ADDRESS, or one that is started on this machine.

    The workers need this package and the source at the same path. A job has as many CPUs of the cluster as this process
    has threads, for the reason of `Processes`, and a GPU if the cluster has any.

    Args:
        count: number of workers of a cluster on this machine.
    """

    splits = True

    def __init__(self, count: int | None, keep_memory: bool):
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError('--backend ray needs the package Ray: pip install loftr_ros[ray]') from error
        self.address = os.environ.get('RAY_ADDRESS')
        if self.address and count:
            raise InputError(
                f'--jobs {count} is for a cluster on this machine, and RAY_ADDRESS={self.address} names one that has '
                'its own workers; leave out one of both'
            )
        self.count, self.keep_memory = count, keep_memory

    def run(self, jobs: Sequence[Job], report: Report) -> Iterator[Any]:
        import ray
        import torch
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        threads = torch.get_num_threads()
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # Ray would report the use of a cluster to its makers
        cpus = None if self.address else threads * (self.count or max(1, (os.cpu_count() or 1) // threads))
        ray.init(self.address or 'local', num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING)
        try:
            largest = max((node['Resources'].get('CPU', 0) for node in ray.nodes() if node['Alive']), default=0)
            if largest < threads:
                raise InputError(
                    f'a job has {threads} threads, and no machine of the cluster has more than {largest:g} CPUs; set '
                    f'OMP_NUM_THREADS={int(largest)}, here and where you compare with the result'
                )
            # With this process: it must not be lost with another machine.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            queue = Queue(actor_options={'num_cpus': 0, 'scheduling_strategy': here})
            gpus = int(bool(ray.cluster_resources().get('GPU')))
            task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=TRIES - 1)(_work_for_ray)
            tasks = [task.remote(job, number, queue, threads, self.keep_memory) for number, job in enumerate(jobs)]
            for reference in tasks:
                is_done = False
                while not is_done:
                    is_done = bool(ray.wait([reference], timeout=POLL_S)[0])
                    for number, done in queue.get_nowait_batch(queue.qsize()):
                        report(number, done)
                yield _result_of(reference)
        finally:
            ray.shutdown()  # ends the jobs that are not needed any more


def _result_of(reference) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f'{TRIES} workers died in the same job: {error}') from error


def _work_for_ray(job: Job, number: int, queue, threads: int, keep_memory: bool) -> Any:
    prepare_process(keep_memory)  # before torch
    import torch

    torch.set_num_threads(threads)  # Ray sets OMP_NUM_THREADS
    return job(lambda done: queue.put((number, done)))
