"""Time of the node without matcher and pose: from a VGA image to the messages over DDS.

    . scripts/environment.sh && python benchmarks/node.py

Driver, node and recorder are separate processes. The time is from the stamp, which the driver sets just before it
publishes, to the arrival of the Matches message at the recorder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import report

from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.messages import stamp_ns
from loftr_ros.ros import live_run
from loftr_ros.ros.resources import share_file

FRAMES = 30
RATE_HZ = 2.0
RESIZE_MAX_PX = 320
"""The matcher reduces the VGA image, so that no frame waits for an earlier one; all other parts use the full size."""


def measure(pairing: str, preset: str, folder: Path) -> list:
    """Return a row of the table."""
    parameters = {'input.process_every_frame': 'true', 'input.image_qos': 'RELIABLE'}
    parameters['matcher.resize_max'] = str(RESIZE_MAX_PX)
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
        save_sequence(rendered_drive(num_frames=FRAMES), folder / 'drive')
        rows = [measure('stereo', 'config/stereo.yaml', folder), measure('temporal', 'config/mono.yaml', folder)]
    header = ['pairing', 'pairs', 'image to messages p50 [ms]', 'matcher p50', 'pose p50', 'added p50', 'added p95']
    report.write(
        'node.md',
        '# What the node adds to the matcher\n\n'
        f'`python benchmarks/node.py`: 640x480 bgr8 over DDS, which the matcher reduces to {RESIZE_MAX_PX} px.\n'
        f'Added: stamp to arrival at a subscriber, less matcher and pose. Target: 5 ms median.\n\n'
        f'{report.circumstances()}\n\n{report.table(header, rows)}\n',
    )


if __name__ == '__main__':
    main()
