"""Time from a VGA image to the messages over DDS with shipped settings; what the node adds to matcher and pose.

    . scripts/environment.sh && python benchmarks/node.py

Driver, node and recorder are separate processes. The time is from the stamp, which the driver sets just before it
publishes, to the arrival of the Matches message at the recorder. A pair by SIFT (2048 keypoints, ratio 0.8) is timed
before and after.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import report

from loftr_ros.config import Config
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.datasets.sequence import Sequence
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.matchers import match_images
from loftr_ros.messages import stamp_ns
from loftr_ros.ros import live_run
from loftr_ros.ros.resources import share_file

FRAMES = 30
RATE_HZ = 2.0
"""So slow that no frame waits for an earlier one."""


def sift_ms(drive: Sequence) -> float:
    """Return the median time of a pair by SIFT over the frames of the drive [ms]."""
    matcher = create_compared('sift', Config().matcher)
    images = [drive.frames(index)[0].image for index in range(FRAMES)]
    times = []
    for pair in itertools.pairwise(images):
        started = time.perf_counter()
        match_images(matcher, *pair)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def measure(pairing: str, preset: str, folder: Path) -> list:
    """Return a row of the table."""
    parameters = {'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE'}
    recording = live_run.run(folder / 'drive', [share_file(preset)], pairing, RATE_HZ, folder, parameters)
    pose_s = {stamp_ns(message.header): message.pose_s for message in recording.poses}
    total, added = [], []
    for message, arrival_ns in recording.matches:
        stamp = stamp_ns(message.header)
        total.append((arrival_ns - stamp) / 1e6)
        added.append(total[-1] - 1e3 * (message.match_s + pose_s[stamp]))
    matcher_ms = [1e3 * message.match_s for message, _ in recording.matches]
    medians = [float(np.median(values)) for values in (total, matcher_ms, [1e3 * s for s in pose_s.values()], added)]
    return [pairing, len(added), *medians, float(np.percentile(added, 95))]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        drive = rendered_drive(num_frames=FRAMES)
        save_sequence(drive, folder / 'drive')
        before = sift_ms(drive)
        rows = [measure('stereo', 'config/stereo.yaml', folder), measure('temporal', 'config/mono.yaml', folder)]
        sift = (before + sift_ms(drive)) / 2
    rows = [[*row, row[2] / sift] for row in rows]
    header = ['pairing', 'pairs', 'image to messages p50 [ms]', 'matcher p50', 'pose p50', 'added p50', 'added p95']
    header.append('image to messages, share of a SIFT pair')
    report.write(
        'node.md',
        '# Time from an image to the messages\n\n'
        '`python benchmarks/node.py`: 640x480 bgr8 over DDS, shipped settings. Added: stamp to arrival at a\n'
        f'subscriber, less matcher and pose; goal 5 ms. A pair by SIFT takes {sift:.0f} ms in the same run; goal for\n'
        'temporal pairs: at most 1.3 of it.\n\n'
        f'{report.circumstances()}\n\n{report.table(header, rows)}\n',
    )


if __name__ == '__main__':
    main()
