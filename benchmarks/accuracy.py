"""How right the matches are beside SIFT and ORB: planar scenes with known homographies, a drive with known poses.

    . scripts/environment.sh && python benchmarks/accuracy.py ../shared/data [--matchers gcm ...]

The folder holds `oxford_affine/{leuven,wall,graf,boat}` (VGG affine covariant features) and `kitti06` (KITTI odometry
06, left grey, with poses.txt). All matchers run with the shipped settings, in turn on each pair.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import report

from loftr_ros.config import Config
from loftr_ros.datatypes import PoseFailure
from loftr_ros.evaluation.baselines import BASELINES, NUM_KEYPOINTS, create_baseline
from loftr_ros.evaluation.metrics import (
    direction_error_deg,
    error_auc,
    mean_matching_accuracy,
    pose_error_deg,
    rotation_error_deg,
    transfer_errors_px,
)
from loftr_ros.evaluation.sequences import open_sequence
from loftr_ros.matchers import MATCHERS, create_matcher, match_images
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.runtime import prepare_process

SCENES = ('leuven', 'wall', 'graf', 'boat')
MMA_PX = (1, 3, 5)
STEPS = (1, 3, 6)


def make(name: str):
    """Return a matcher or baseline with the default settings."""
    config = dataclasses.replace(Config().matcher, name=name)
    return create_baseline(config) if name in BASELINES else create_matcher(config)


def timed_match(matcher, image0, image1):
    """Return matches and milliseconds."""
    start = time.perf_counter()
    matches = match_images(matcher, image0, image1)
    return matches, 1e3 * (time.perf_counter() - start)


def planar(matchers: dict, folder: Path) -> str:
    """Return the table of mean matching accuracy."""
    header = ['pair', *(f'{name}: MMA@1/3/5 px (matches)' for name in matchers)]
    rows = []
    for scene in SCENES:
        images = [cv2.imread(str(path)) for path in sorted((folder / scene).glob('img*.p?m'))]
        for other in (2, 3, 4):
            homography = np.loadtxt(folder / scene / f'H1to{other}p')
            cells = []
            for matcher in matchers.values():
                matches = match_images(matcher, images[0], images[other - 1])
                errors = transfer_errors_px(homography, matches.keypoints0, matches.keypoints1)
                accuracy = mean_matching_accuracy(errors, MMA_PX)
                cells.append(' / '.join(f'{a:.2f}' for a in accuracy) + f' ({len(matches)})')
            rows.append([f'{scene} 1-{other}', *cells])
    return report.table(header, rows)


def drive(matchers: dict, folder: Path) -> str:
    """Return the table of pose errors over all pairs of frames some steps apart."""
    config = Config().pose
    sequence = open_sequence(folder)
    header = ['frames apart', 'matcher', 'rotation p50 [deg]', 'max', 'direction p50 [deg]', 'max']
    header += ['pose AUC@5/10/20', 'inliers p50', 'failures', 'ms a pair p50']
    rows = []
    for step in STEPS:
        results = {name: [] for name in matchers}
        for index in range(0, len(sequence) - step, step):
            frame0, frame1 = sequence.frames(index)[0], sequence.frames(index + step)[0]
            truth = np.linalg.inv(sequence.world_from_cam0[index + step]) @ sequence.world_from_cam0[index]
            for name, matcher in matchers.items():
                matches, ms = timed_match(matcher, frame0.image, frame1.image)
                pose = estimate_relative_pose(matches, frame0.camera, frame1.camera, config)
                results[name].append((*pose_errors(pose, truth), ms))
        for name, values in results.items():
            rotation, direction, total, inliers, ms = np.array(values).T
            auc = ' / '.join(f'{a:.3f}' for a in error_auc(total, (5, 10, 20)))
            errors = [float(f(e)) for e in (rotation, direction) for f in (np.median, np.max)]
            failures = int(np.isinf(rotation).sum())
            rows.append([step, name, *errors, auc, int(np.median(inliers)), failures, float(np.median(ms))])
    return report.table(header, rows)


def pose_errors(pose, truth: np.ndarray) -> tuple[float, float, float, int]:
    """Return rotation, direction and pose error [deg] and the inliers; a failure has infinite errors."""
    if isinstance(pose, PoseFailure):
        return float('inf'), float('inf'), float('inf'), pose.num_inliers
    rotation = rotation_error_deg(pose.rotation, truth[:3, :3])
    direction = direction_error_deg(pose.translation, truth[:3, 3])
    return rotation, direction, pose_error_deg(pose.cam1_from_cam0, truth), pose.num_inliers


def vga_pair(folder: Path) -> list[np.ndarray]:
    """Return leuven 1 and 2 at 640x480."""
    paths = [folder / 'oxford_affine/leuven' / f'img{i}.ppm' for i in (1, 2)]
    return [cv2.resize(cv2.imread(str(path)), (640, 480), interpolation=cv2.INTER_AREA) for path in paths]


def cost(name: str, folder: Path, repeats: int = 10) -> list:
    """Return times with nothing cached and with features of image 0 kept [ms], and added memory [MiB] of a VGA pair.

    Processor time, over all cores, says what a busy machine hides.
    """
    matcher, (image0, image1) = make(name), vga_pair(folder)
    match_images(matcher, image0[:32, :32], image1[:32, :32])  # libraries load what they need before the memory counts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    match_images(matcher, image0, image1)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    cold, cached, processor = [], [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        features0 = matcher.extract(image0)
        middle = time.perf_counter()
        matcher.match(features0, matcher.extract(image1))
        end = time.perf_counter()
        cold.append(1e3 * (end - start))
        cached.append(1e3 * (end - middle))
        processor.append(1e3 * (time.process_time() - start_processor))
    return [name, min(cold), float(np.median(cold)), min(cached), min(processor), added]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with oxford_affine and kitti06')
    parser.add_argument('--matchers', nargs='+', default=['gcm'], choices=list(MATCHERS), help='beside SIFT and ORB')
    parser.add_argument('--cost-of', help=argparse.SUPPRESS)  # the child process that measures memory
    options = parser.parse_args()
    prepare_process()
    if options.cost_of:
        print(*cost(options.cost_of, options.data))
        return
    names = [*BASELINES, *options.matchers]
    matchers = {name: make(name) for name in names}
    costs, load = [], os.getloadavg()[0]
    for name in names:  # each in a fresh process: peak memory never falls
        command = [sys.executable, __file__, str(options.data), '--cost-of', name]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        costs.append([words[0], *(int(float(word)) for word in words[1:])])
    header = [
        'matcher',
        'cold min [ms]',
        'cold p50 [ms]',
        'image 0 kept, min [ms]',
        'cold, processor min [ms]',
        'memory added [MiB]',
    ]
    report.write(
        'accuracy.md',
        '# Accuracy of the matchers\n\n'
        f'`python benchmarks/accuracy.py ../shared/data --matchers {" ".join(options.matchers)}`: shipped settings '
        f'(match_threshold {Config().matcher.match_threshold}, max_matches {Config().matcher.max_matches}, resize_max '
        f'{Config().matcher.resize_max}); SIFT and ORB with {NUM_KEYPOINTS} keypoints, ratio 0.8.\n\n'
        f'{report.circumstances()}\n\n'
        '## Planar scenes, mean matching accuracy\n\n'
        f'{planar(matchers, options.data / "oxford_affine")}\n\n'
        '## KITTI 06, relative pose by loftr_ros.pose\n\n'
        f'{drive(matchers, options.data / "kitti06")}\n\n'
        f'## Cost of one pair of 640x480, load average {load:.1f} before it\n\n'
        f'{report.table(header, costs)}\n',
    )


if __name__ == '__main__':
    main()
