"""Runs driver and node as two processes over DDS and records what the node publishes.

The demo, the node benchmark and the tests with real images use it. This module must be imported before rclpy is
initialised, because DDS reads the environment of `isolate` only at its start.
"""

from __future__ import annotations

import csv
import ctypes
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from loftr_ros.errors import LoftrRosError
from loftr_ros.msg import Matches, OdometryInfo, RelativePose, Tracks
from loftr_ros.parameter_files import NODE_NAME
from loftr_ros.ros.diagnostics import status_name

STARTUP_S = 60.0
"""Time that a node may take to load torch and its matcher."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when its parent ends."""


class LiveRunError(LoftrRosError):
    """A process of a live run could not start, stopped early or did not end."""


@dataclasses.dataclass
class Recording:
    """Result of a live run. Lists are in the order of arrival.

    Args:
        stamps_ns: index of each published frame by its stamp.
        matches: Matches messages, with the time of their arrival [ns].
        poses: RelativePose messages.
        odometry, infos, tracks: messages of pairing odometry.
        diagnostics: the last values on /diagnostics, key -> text.
    """

    stamps_ns: dict[int, int] = dataclasses.field(default_factory=dict)
    matches: list[tuple[Matches, int]] = dataclasses.field(default_factory=list)
    poses: list[RelativePose] = dataclasses.field(default_factory=list)
    odometry: list[Odometry] = dataclasses.field(default_factory=list)
    infos: list[OdometryInfo] = dataclasses.field(default_factory=list)
    tracks: list[Tracks] = dataclasses.field(default_factory=list)
    diagnostics: dict[str, str] = dataclasses.field(default_factory=dict)

    def count(self, key: str) -> int:
        """Return a counter of the node's diagnostics."""
        return int(self.diagnostics.get(key, 0))


def isolate() -> dict[str, str]:
    """Return an environment in which DDS uses only this machine and a random domain."""
    from loftr_ros.ros.resources import share_file

    environment = dict(os.environ)
    # 101 is the last domain whose ports are below Linux' range of ephemeral ports.
    environment['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 101))
    if environment.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp') == 'rmw_fastrtps_cpp':
        environment['FASTDDS_DEFAULT_PROFILES_FILE'] = str(share_file('config/fastdds_loopback.xml'))
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'SUBNET'
    else:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        environment['ROS_LOCALHOST_ONLY'] = '1'
    return environment


def child_setup() -> Callable[[], None]:
    """Return a `preexec_fn` with which the child can be interrupted and is killed when its parent ends (prctl(2)).

    Without it, the nodes of a killed program continue and disturb later ones. Call it in the thread that starts the
    child and lives as long: Linux sends the signal when that thread ends.
    """
    libc = ctypes.CDLL(None)  # before the fork, because loading a library between fork and exec is not safe
    parent = os.getpid()

    def setup() -> None:
        # A job started in the background by a shell ignores SIGINT, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl
            os._exit(1)

    return setup


class Process:
    """A child process in a new session, so that a signal reaches all its children; its output is written to a file."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str], log: Path):
        self.log = log
        self._module = module
        with log.open('w') as output:
            self._child = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                env={**environment, 'PYTHONUNBUFFERED': '1'},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=child_setup(),
            )

    def check(self) -> None:
        """Raise LiveRunError with the end of the log if the process has failed."""
        if self._child.poll() not in (None, 0):
            tail = '\n'.join(self.log.read_text().splitlines()[-15:])
            raise LiveRunError(
                f'{self._module} ended with status {self._child.returncode}; the end of its output:\n{tail}'
            )

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process and all its children."""
        os.killpg(self._child.pid, number)

    def wait(self, timeout_s: float = 15.0) -> int:
        """Return the exit status once the process has ended."""
        return self._child.wait(timeout_s)

    def stop(self, timeout_s: float = 15.0) -> int:
        """Interrupt the process as Ctrl-C does and return its exit status; kill it if it does not end."""
        if self.is_running:
            self.signal(signal.SIGINT)
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            raise LiveRunError(f'{self._module} did not end within {timeout_s:.0f} s of SIGINT') from None


class Recorder:
    """Subscribes to the outputs of a node named `matcher`."""

    def __init__(self, environment: dict[str, str]):
        os.environ.update({name: value for name, value in environment.items() if name.startswith(('ROS_', 'FASTDDS_'))})
        self.recording = Recording()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = Node('recorder', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        record = self.recording
        self._node.create_subscription(
            Matches, 'matcher/matches', lambda m: record.matches.append((m, time.time_ns())), 1000
        )
        for message_type, topic, messages in (
            (RelativePose, 'relative_pose', record.poses),
            (Odometry, 'odometry', record.odometry),
            (OdometryInfo, 'odometry_info', record.infos),
            (Tracks, 'tracks', record.tracks),
        ):
            self._node.create_subscription(message_type, f'matcher/{topic}', messages.append, 1000)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == status_name(NODE_NAME):  # other nodes may publish on /diagnostics too
                self.recording.diagnostics = {item.key: item.value for item in status.values}

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def run(
    source: Path,
    parameter_files: list[Path],
    pairing: str,
    rate_hz: float,
    work_folder: Path,
    parameters: dict[str, str] | None = None,
    rig: str = '',
    recorded_stamps: bool = False,
    progress: Callable[[int], None] = lambda published: None,
) -> Recording:
    """Play `source` to a new node and return what the node published.

    Args:
        parameters: further parameters of the node, by name.
        rig: odometry.rig, with pairing odometry.
        recorded_stamps: messages have the stamps of the recording; by default those of their publication.
        progress: called with the number of frames published so far.
    """
    environment = isolate()
    name = f'{pairing}_{rig}' if rig else pairing
    stamps = work_folder / f'stamps_{name}.csv'
    stamps.unlink(missing_ok=True)
    arguments = ['--ros-args']
    for path in parameter_files:
        arguments += ['--params-file', str(path)]
    own = {'input.pairing': pairing} | ({'odometry.rig': rig} if rig else {})
    for parameter, value in {**own, **(parameters or {})}.items():
        arguments += ['-p', f'{parameter}:={value}']
    rig = rig or {'temporal': 'mono', 'stereo': 'stereo'}[pairing]
    driver_arguments = ['play', str(source), '--rig', rig, '--rate', str(rate_hz), '--wait', '1']
    if recorded_stamps:
        driver_arguments.append('--clock')
    node = Process('loftr_ros.ros.matcher_node', arguments, environment, work_folder / f'node_{name}.log')
    recorder = Recorder(environment)
    driver = None
    try:
        driver = Process(
            'loftr_ros.cli',
            [*driver_arguments, '--stamps', str(stamps)],
            environment,
            work_folder / f'driver_{name}.log',
        )
        while driver.is_running:
            recorder.spin(0.2)
            node.check()
            progress(len(_read_stamps(stamps)))
        driver.check()
        recorder.recording.stamps_ns = _read_stamps(stamps)
        _drain(recorder, node)
        status = node.stop()
        if status != 0:
            node.check()
    finally:
        for process in (driver, node):
            if process is not None and process.is_running:
                process.stop()
        recorder.close()
    return recorder.recording


def _drain(recorder: Recorder, node: Process, timeout_s: float = STARTUP_S) -> None:
    """Spin until the node has accounted for every set of messages.

    Raises:
        LiveRunError: no further set was counted for `timeout_s`, or the node reports more sets than were published.
    """
    record = recorder.recording
    published, counted, previous = len(record.stamps_ns), -1, None
    counted_s = time.monotonic()
    while time.monotonic() - counted_s < timeout_s:
        recorder.spin(2.5)  # longer than two periods of diagnostics
        node.check()
        paired, done = record.count('paired'), sum(record.count(key) for key in ('processed', 'superseded', 'dropped'))
        if paired > published:
            raise LiveRunError(
                f'{NODE_NAME} reports {paired} sets of messages, {published} were published: another node of this name '
                f'is in domain {os.environ["ROS_DOMAIN_ID"]}; stop it and run again'
            )
        if done > counted:  # a larger count only: two nodes of one name would change it to and fro for ever
            counted, counted_s = done, time.monotonic()
        state = (done, paired, len(record.matches))
        if state == previous and done == paired > 0:
            return
        previous = state
    raise LiveRunError(
        f'the node has not finished and has counted no further set for {timeout_s:.0f} s: {record.diagnostics}; see '
        f'{node.log}'
    )


def _read_stamps(path: Path) -> dict[int, int]:
    if not path.exists():
        return {}
    with path.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row['index'] and row['stamp_ns']]
    return {int(row['stamp_ns']): int(row['index']) for row in rows}
