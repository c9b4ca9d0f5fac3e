"""Accuracy and cost of the matchers, with SIFT and ORB as baselines: poses, homographies, disparity, plain rooms.

    . scripts/environment.sh && python benchmarks/accuracy.py ../shared/data

The folder contains `kitti06`, `lund_door`, `tartanair_stereo_rgbd`, `tum_fr1_rgbd`, `oxford_affine` and
`motorcycle_stereo`; the rooms are rendered. All matchers run with the shipped settings, in turn on each pair. A
complete run writes benchmarks/results/accuracy.md and the table in README.md; a run with `--sets` only prints.
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
from typing import NamedTuple

import cv2
import numpy as np
import report
from accuracy_sets import (
    CORRECT_DISPARITY_PX,
    CORRECT_TRANSFER_PX,
    HOMOGRAPHY_RANSAC_PX,
    SETS,
    HomographySet,
    PairSet,
)
from plain_rooms import MAX_SIFT_MATCHES
from tqdm import tqdm

from loftr_ros.config import Config
from loftr_ros.evaluation.compared import BASELINES, RATIO, create_compared
from loftr_ros.evaluation.relative_pose import CORRECT_PX
from loftr_ros.image_files import read_colour
from loftr_ros.matchers import match_images
from loftr_ros.matchers.nearest_neighbours import NUM_KEYPOINTS
from loftr_ros.runtime import prepare_process
from loftr_ros.weights import Checkpoint, load_state
from loftr_ros.weights.locate import find, identify

SHIPPED = ['default', 'loftr', 'loftr:loftr_small_ot', 'superpoint_nn', 'superglue', 'gcm']
NETWORKS = {'default': 'efficient_loftr', 'superpoint_nn': 'superpoint'}
"""The network of a matcher whose name is another."""

COST = 'cost'
COST_REPEATS = 10
README = Path(__file__).parents[1] / 'README.md'


def make(name: str):
    """Return a matcher with the default settings, or a baseline with its own settings."""
    return create_compared(name, Config().matcher)


class Measured(NamedTuple):
    """Results of one matcher on one set: a row of PairSet.measure for each pair, and its times [ms]."""

    rows: list[tuple]
    times_ms: list[float]


def measure(pair_set: PairSet, matchers: dict, bar: tqdm) -> tuple[list[str], dict[str, Measured]]:
    """Return the names of the pairs, and the results of each matcher; all run in turn on every pair."""
    names, results = [], {name: Measured([], []) for name in matchers}
    bar.set_description(pair_set.title)
    for pair in pair_set.pairs():
        names.append(pair.name)
        for name, matcher in matchers.items():
            start = time.perf_counter()
            matches = match_images(matcher, pair.image0, pair.image1)
            results[name].times_ms.append(1e3 * (time.perf_counter() - start))
            results[name].rows.append(pair_set.measure(pair, matches))
            bar.update()
    return names, results


def details(measured: list[tuple[PairSet, list[str], dict[str, Measured]]]) -> str:
    """Return one table for each kind of set, and one of the single pairs with a homography."""
    parts = []
    for kind in dict.fromkeys(type(pair_set) for pair_set, *_ in measured):
        of_kind = [entry for entry in measured if type(entry[0]) is kind]
        rows = [
            [pair_set.title, len(names), name, *pair_set.cells(result.rows), int(np.median(result.times_ms))]
            for pair_set, names, results in of_kind
            for name, result in results.items()
        ]
        header = ['set', 'pairs', 'matcher', *kind.columns, 'ms a pair p50']
        parts += [f'## {kind.heading}', report.table(header, rows)]
        if kind is HomographySet:
            matchers = list(of_kind[0][2])
            rows = [
                [pair, *(HomographySet.pair_cell(results[name].rows[number]) for name in matchers)]
                for _, names, results in of_kind
                for number, pair in enumerate(names)
            ]
            parts += ['Each pair: MMA@1/3/5 px; corner error of the homography; correct of all matches.']
            parts += [report.table(['pair', *matchers], rows)]
    return '\n\n'.join(parts)


# --- cost --------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Times without cached features and with those of image 0, and the additional memory for a pair of 640x480.

    Processor time over all cores hardly depends on other programs.
    """

    cold_min_ms: int
    cold_p50_ms: int
    image0_kept_min_ms: int
    processor_min_ms: int
    memory_mib: int


COST_HEADER = (
    'matcher',
    'cold min [ms]',
    'cold p50 [ms]',
    'image 0 kept, min [ms]',
    'cold, processor min [ms]',
    'memory added [MiB]',
)


def vga_pair(folder: Path) -> list[np.ndarray]:
    """Return leuven 1 and 2 at 640x480."""
    paths = [folder / 'oxford_affine/leuven' / f'img{i}.ppm' for i in (1, 2)]
    return [cv2.resize(read_colour(path), (640, 480), interpolation=cv2.INTER_AREA) for path in paths]


def cost(name: str, folder: Path) -> Cost:
    """Return the cost of a pair. Call it in a new process, because peak memory never decreases."""
    matcher, (image0, image1) = make(name), vga_pair(folder)
    match_images(matcher, image0[:32, :32], image1[:32, :32])  # libraries are loaded before the memory is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    match_images(matcher, image0, image1)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    cold, cached, processor = [], [], []
    for _ in range(COST_REPEATS):
        start, start_processor = time.perf_counter(), time.process_time()
        features0 = matcher.extract(image0)
        middle = time.perf_counter()
        matcher.match(features0, matcher.extract(image1))
        end = time.perf_counter()
        cold.append(1e3 * (end - start))
        cached.append(1e3 * (end - middle))
        processor.append(1e3 * (time.process_time() - start_processor))
    return Cost(*(round(float(v)) for v in (min(cold), np.median(cold), min(cached), min(processor), added)))


def costs_of(names: list[str], folder: Path, bar: tqdm) -> dict[str, Cost]:
    """Return the cost of each matcher, each in a separate process."""
    bar.set_description(COST)
    costs = {}
    for name in names:
        command = [sys.executable, __file__, str(folder), '--cost-of', name]
        words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        costs[name] = Cost(*map(int, words))
        bar.update()
    return costs


# --- weights -----------------------------------------------------------------------------------------------------


def weights_of(name: str) -> list[tuple[Checkpoint, Path]]:
    """Return the files of weights that a matcher loads; none for those of OpenCV."""
    if name in BASELINES:
        return []
    config = dataclasses.replace(Config().matcher, weights='')
    plain, _, weights = name.partition(':')
    if plain == 'gcm':
        return [find('', config.gcm.backbone), identify(config.gcm.descriptor)]
    checkpoint, path = find(weights, NETWORKS.get(plain, plain))
    return [(checkpoint, path), *([identify(checkpoint.detector)] if checkpoint.detector else [])]


def weights_cells(name: str) -> tuple[str, str]:
    """Return parameters and size of a matcher's weights, and their licence."""
    files = weights_of(name)
    if not files:
        return 'none', ''
    parameters = sum(tensor.numel() for _, path in files for tensor in load_state(path).values())
    size = sum(path.stat().st_size for _, path in files) / 2**20
    return f'{parameters / 1e6:.2f} M; {size:.1f}', ', '.join(dict.fromkeys(entry.licence for entry, _ in files))


# --- report ------------------------------------------------------------------------------------------------------


def summary(measured, costs: dict[str, Cost], names: list[str]) -> str:
    """Return the table of the README: a row for each set, a column for each matcher."""
    rows = [
        [f'{pair_set.title} ({len(pairs)})', pair_set.headline, *(pair_set.summary(results[n].rows) for n in names)]
        for pair_set, pairs, results in measured
    ]
    if costs:
        cells = [f'{costs[name].cold_min_ms}; {costs[name].image0_kept_min_ms}' for name in names]
        rows.append(['one pair of 640x480, CPU', 'ms; with the features of image 0 kept', *cells])
    sizes, licences = zip(*map(weights_cells, names), strict=True)
    rows.append(['weights', 'parameters; MiB', *sizes])
    rows.append(['', 'licence', *licences])
    return report.table(['set (pairs)', 'measure', *(f'`{name}`' for name in names)], rows)


def introduction(matchers: list[str]) -> str:
    """Return the settings of the measurements and the definitions of the terms in the tables."""
    matcher, pose = Config().matcher, Config().pose
    return (
        f'`python benchmarks/accuracy.py ../shared/data --matchers {" ".join(matchers)}`\n\n'
        f'Shipped settings: match_threshold {matcher.match_threshold}, max_matches {matcher.max_matches}, resize_max '
        f'{matcher.resize_max} for all; poses by {pose.estimator} at {pose.max_epipolar_error_px} px. SIFT and ORB: '
        f'{NUM_KEYPOINTS} keypoints, ratio {RATIO}, all matches; `+lk`: their points refined by Lucas-Kanade, as '
        'those of the others are.\n\n'
        f'A match is correct up to a Sampson error of {CORRECT_PX:.0f} px under the true pose, '
        f'{CORRECT_TRANSFER_PX:.0f} px from where the true homography puts it, or {CORRECT_DISPARITY_PX:.0f} px from '
        'where the true disparity puts it (of the places where that is known). A pair without a pose, or without the '
        'direction of the translation, has an infinite error and is a failure. Homographies: USAC_MAGSAC at '
        f'{HOMOGRAPHY_RANSAC_PX:.0f} px; MMA and AUC are those of the five pairs 1-2 to 1-6. The plain rooms are the '
        f'first in which SIFT finds fewer than {MAX_SIFT_MATCHES} matches, which is hard on SIFT by construction. From '
        'frame to frame of TUM fr1 the camera moves 1 % of the depth, too little for a direction under rolling shutter '
        'and noisy true poses: read the correct matches there, not the AUC.'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with the data sets')
    parser.add_argument(
        '--matchers',
        nargs='+',
        default=SHIPPED,
        metavar='NAME',
        help='NAME or NAME:WEIGHTS',
    )
    parser.add_argument('--sets', nargs='+', choices=[*SETS, COST], help='only these, and only print them')
    parser.add_argument('--no-readme', action='store_true', help='leave the table in README.md as it is')
    parser.add_argument('--cost-of', help=argparse.SUPPRESS)  # the child process that measures memory
    options = parser.parse_args()
    prepare_process()
    if options.cost_of:
        print(*cost(options.cost_of, options.data))
        return
    chosen = options.sets or [*SETS, COST]
    names = [*BASELINES, *options.matchers]
    matchers = {name: make(name) for name in names}
    load = os.getloadavg()[0]
    pair_sets = [pair_set for name in chosen if name != COST for pair_set in SETS[name](options.data)]
    total = len(names) * (sum(pair_set.count for pair_set in pair_sets) + (COST in chosen))
    with tqdm(total=total, unit='pair') as bar:
        costs = costs_of(names, options.data, bar) if COST in chosen else {}
        measured = [(pair_set, *measure(pair_set, matchers, bar)) for pair_set in pair_sets]
    table = summary(measured, costs, names)
    circumstances = f'{report.circumstances()}\n* load average before it: {load:.1f}'
    parts = ['# Accuracy of the matchers', introduction(options.matchers), circumstances, table, details(measured)]
    if costs:
        rows = [[name, *values] for name, values in costs.items()]
        parts += ['## Cost of one pair of 640x480', report.table(list(COST_HEADER), rows)]
    text = '\n\n'.join(parts) + '\n'
    if options.sets:
        print(text)
        return
    report.write('accuracy.md', text)
    if not options.no_readme:
        report.write_between(README, 'accuracy', table)


if __name__ == '__main__':
    main()
