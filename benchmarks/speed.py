"""Time of a pair, a video frame and a pose with the default matcher, beside a SIFT pair in the same run.

    . scripts/environment.sh && python benchmarks/speed.py ../shared/data

All parts run in turn, so that other programs slow all of them. The images are two views of the Lund door, cut to 4:3.
Writes benchmarks/results/speed.md; with `--print-only` it only prints.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import report
from tqdm import tqdm

from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datasets import open_sequence
from loftr_ros.evaluation.compared import RATIO, create_compared
from loftr_ros.image import scale_matrix
from loftr_ros.matchers import Matcher, match_images
from loftr_ros.matchers.nearest_neighbours import NUM_KEYPOINTS
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.runtime import prepare_process

SIZES = ((320, 240), (640, 480), (1280, 960))
REPEATS = 15
GOALS = {'SIFT pair': 1.0, 'default pair': None, 'default video frame': 0.75, 'default pose': 0.15}
"""Part -> goal, as a share of the SIFT pair at 640x480."""


def door_pair(folder: Path, width: int, height: int) -> tuple[list[np.ndarray], Camera]:
    """Return two neighbouring grey views of the Lund door, cut to 4:3 and resized, and their camera."""
    sequence = open_sequence(folder / 'lund_door')
    frames = [sequence.frames(number)[0] for number in (0, 1)]
    rows, columns = frames[0].image.shape[:2]
    cut = columns * height // width
    top = (rows - cut) // 2
    images = [
        cv2.resize(
            cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)[top : top + cut],
            (width, height),
            interpolation=cv2.INTER_AREA,
        )
        for frame in frames
    ]
    camera = frames[0].camera
    matrix = camera.matrix.copy()
    matrix[1, 2] -= top
    matrix = scale_matrix((width / columns, height / cut)) @ matrix
    return images, Camera(matrix, width, height, camera.distortion, camera.model)


def parts(default: Matcher, sift: Matcher, images: list[np.ndarray], camera: Camera) -> dict[str, Callable]:
    """Return what is timed, by the names of GOALS."""
    keyframe = default.extract(images[0])
    matches = match_images(default, *images)
    return {
        'SIFT pair': lambda: match_images(sift, *images),
        'default pair': lambda: match_images(default, *images),
        'default video frame': lambda: default.match(keyframe, default.extract(images[1])),
        'default pose': lambda: estimate_relative_pose(matches, camera, camera, Config().pose),
    }


def times_ms(functions: dict[str, Callable], repeats: int, bar: tqdm) -> dict[str, np.ndarray]:
    """Return (repeats,) times [ms] of each function; they run in turn."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
        bar.update()
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with lund_door')
    parser.add_argument('--repeats', type=int, default=REPEATS)
    parser.add_argument('--print-only', action='store_true', help='leave the file of results as it is')
    options = parser.parse_args()
    prepare_process()
    default, sift = (create_compared(name, Config().matcher) for name in ('default', 'sift'))
    load = os.getloadavg()[0]
    measured, counts = {}, {}
    with tqdm(total=len(SIZES) * options.repeats, unit='round') as bar:
        for size in SIZES:
            images, camera = door_pair(options.data, *size)
            counts[size] = [len(match_images(matcher, *images)) for matcher in (sift, default)]
            measured[size] = times_ms(parts(default, sift, images, camera), options.repeats, bar)
    rows = []
    for size, times in measured.items():
        least = {name: values.min() for name, values in times.items()}
        for name, values in times.items():
            share = least[name] / least['SIFT pair']
            goal = GOALS[name] if size == (640, 480) and GOALS[name] else '-'
            growth = least[name] / measured[SIZES[0]][name].min()
            rows.append(['x'.join(map(str, size)), name, f'{least[name]:.0f}', f'{np.median(values):.0f}']
                        + [f'{share:.2f}', goal, f'{growth:.1f}'])  # fmt: skip
    header = ['size', 'part', 'least [ms]', 'p50 [ms]', 'share of the SIFT pair', 'goal', 'times that of 320x240']
    found = '; '.join(
        f'{width}x{height}: SIFT {sift_count}, default {count}'
        for (width, height), (sift_count, count) in counts.items()
    )
    introduction = (
        f'`python benchmarks/speed.py ../shared/data` (`make speed`): shipped settings, least and median of '
        f'{options.repeats} rounds, all parts in turn. SIFT: {NUM_KEYPOINTS} keypoints, ratio {RATIO}, without '
        'Lucas-Kanade. A video frame is extraction, match and sub-pixel refinement with the features of the keyframe '
        'kept. Shares are those of the least times.'
    )
    circumstances = f'{report.circumstances()}\n* load average before it: {load:.1f}\n* matches: {found}'
    text = '\n\n'.join(['# Speed of the default', introduction, circumstances, report.table(header, rows)]) + '\n'
    if options.print_only:
        print(text)
    else:
        report.write('speed.md', text)


if __name__ == '__main__':
    main()
