"""The rows of GCM: backbones and patch descriptors, beside SIFT, on planes with a known homography.

    . scripts/environment.sh && python benchmarks/gcm.py ../shared/data [--teacher FILE]

The folder holds `oxford_affine`. Matchers take turns on each pair, with all their matches and without Lucas-Kanade, as
in the paper. Time and memory are those of a pair of 640x480 in a process of its own. A whole run writes
benchmarks/results/gcm.md; one of some `--rows` only prints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import report
from accuracy import vga_pair
from accuracy_sets import SETS
from tqdm import tqdm

from loftr_ros.config import Config
from loftr_ros.datatypes import Matches
from loftr_ros.evaluation.compared import RATIO, create_compared
from loftr_ros.evaluation.metrics import mean_matching_accuracy, transfer_errors_px
from loftr_ros.matchers import Matcher, create_matcher, match_images
from loftr_ros.runtime import prepare_process
from loftr_ros.settings import override

LIMITS_PX = (1, 3, 5)
RATIOS = (0.95, 0.60)
"""Of the distances to the nearest and the second descriptor: many matches, precise matches (section IV)."""

REPEATS = 5

BACKBONES = {
    'pooled': {'gcm.backbone': 'pool'},
    "pooled, the paper's refinement": {'gcm.backbone': 'pool', 'gcm.refinement': 'paper'},
    'RepVGG of `default`': {'gcm.backbone': 'efficient_loftr'},
    "RepVGG of `default`, the paper's refinement": {'gcm.backbone': 'efficient_loftr', 'gcm.refinement': 'paper'},
    "RepVGG of `default`, the paper's refinement from 8 to 1": {
        'gcm.backbone': 'efficient_loftr', 'gcm.refinement': 'paper', 'gcm.levels': '8',
    },
}  # fmt: skip
"""By the name in the table, settings of MatcherConfig."""

DFM = {
    'gcm.backbone': 'efficient_loftr', 'gcm.refinement': 'paper', 'gcm.descriptor': 'none', 'gcm.align': True,
    'gcm.ratios': '0.95,0.9,0.9',
}  # fmt: skip
"""As DFM, but with the network of `default` in place of VGG-19, whose weights cannot be shipped."""

PAPER = (
    ('SIFT, nearest neighbours', '', (0.35, 0.50, 0.54), '0.4K'),
    ('DFM', 0.90, (0.51, 0.85, 0.93), '7.0K'),
    ('DFM', 0.60, (0.61, 0.88, 0.94), '1.0K'),
    ('GCM, average pooling', 0.95, (0.60, 0.85, 0.88), '17.4K'),
    ('GCM, VGG-19', 0.95, (0.56, 0.86, 0.92), '13.3K'),
    ('GCM, MobileNetV3', 0.95, (0.50, 0.82, 0.89), '12.8K'),
    ('GCM, ResNet-18', 0.95, (0.53, 0.85, 0.92), '14.4K'),
    ('GCM, ResNet-18', 0.60, (0.68, 0.92, 0.95), '3.1K'),
    ("GCM, ResNet-18, R2D2's descriptor", 0.60, (0.69, 0.91, 0.95), '2.0K'),
)
"""Rows of Tables I and II on HPatches: name, ratio, MMA@1/3/5 px, matches."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A matcher of the table; `settings` are None for SIFT."""

    backbone: str
    descriptor: str
    settings: dict[str, Any] | None

    @property
    def name(self) -> str:
        return f'{self.backbone}, {self.descriptor}'

    def matcher(self) -> Matcher:
        """Return the matcher with all its matches down to the larger ratio."""
        if self.settings is None:
            return create_compared('sift', Config().matcher)
        values = {'name': 'gcm', 'match_threshold': 1 - max(RATIOS), 'max_matches': 0, 'subpixel': 'none'}
        values = {f'matcher.{name}': value for name, value in {**values, **self.settings}.items()}
        return create_matcher(override(Config(), values).matcher)

    @property
    def ratios(self) -> tuple[float, ...]:
        return (RATIO,) if self.settings is None else RATIOS


def all_rows(teacher: str, student: str, squeezenet: str) -> list[Row]:
    """Return SIFT, then each backbone with each descriptor that there is; last DFM's way with the same network."""
    backbones = dict(BACKBONES)
    if squeezenet:
        backbones['SqueezeNet'] = {'gcm.backbone': f'squeezenet1_1={squeezenet}'}
        backbones["SqueezeNet, the paper's refinement"] = {**backbones['SqueezeNet'], 'gcm.refinement': 'paper'}
    descriptors = {'hand-written': 'gradient', 'teacher': teacher, 'student': student}
    return [
        Row('SIFT', f'ratio {RATIO}', None),
        *(
            Row(backbone, descriptor, {**settings, 'gcm.descriptor': weights})
            for backbone, settings in backbones.items()
            for descriptor, weights in descriptors.items()
            if weights
        ),
        Row("DFM's refinement with the RepVGG of `default`", 'none', DFM),
    ]


class Score(NamedTuple):
    """One matcher, ratio and pair."""

    accuracy: tuple[float, ...]  # MMA at LIMITS_PX
    matches: int


def measure(rows: list[Row], data: Path) -> dict[str, dict[tuple[str, float], list[Score]]]:
    """Return scene -> (name of the row, ratio) -> a Score for each pair."""
    matchers = {row.name: row.matcher() for row in rows}
    sets = SETS['oxford'](data)
    results: dict[str, dict] = {}
    with tqdm(total=len(rows) * sum(pair_set.count for pair_set in sets), unit='pair') as bar:
        for pair_set in sets:
            scene = results.setdefault(pair_set.title, {})
            for pair in pair_set.pairs():
                for row in rows:
                    matches = match_images(matchers[row.name], pair.image0, pair.image1)
                    errors = transfer_errors_px(pair.truth, matches.keypoints0, matches.keypoints1)
                    for ratio in row.ratios:
                        scene.setdefault((row.name, ratio), []).append(score(matches, errors, ratio))
                    bar.update()
    return results


def score(matches: Matches, errors: np.ndarray, ratio: float) -> Score:
    """Return the score of the matches that pass the ratio test; their confidence is 1 - ratio."""
    kept = errors[matches.confidence >= 1 - ratio - 1e-6]
    return Score(tuple(mean_matching_accuracy(kept, LIMITS_PX)), len(kept))


class Cost(NamedTuple):
    """Of a pair of 640x480 with nothing cached: least time, and the peak of the memory of matcher and pair."""

    ms: int
    memory_mib: int


def cost(row: Row, data: Path) -> Cost:
    """Return what a pair costs; in a fresh process, since peak memory never falls."""
    image0, image1 = vga_pair(data)
    # Libraries load what they need before the memory counts.
    match_images(create_matcher(Config().matcher), image0[:64, :64], image1[:64, :64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matcher = row.matcher()
    match_images(matcher, image0, image1)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        match_images(matcher, image0, image1)
        times.append(1e3 * (time.perf_counter() - start))
    return Cost(round(min(times)), round(added))


def cost_in_a_process(row: Row, data: Path) -> Cost:
    command = [sys.executable, __file__, str(data), '--cost-of', json.dumps(dataclasses.astuple(row))]
    words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return Cost(*map(int, words))


# --- report ------------------------------------------------------------------------------------------------------


def tables(rows: list[Row], results, costs: dict[str, Cost]) -> list[str]:
    """Return the table over all pairs, that of each scene, and the paper's."""
    scenes = list(results)
    overall, by_scene = [], []
    for row in rows:
        for ratio in row.ratios:
            of_scene = [results[scene][row.name, ratio] for scene in scenes]
            scores = [each for scores in of_scene for each in scores]
            matches = round(float(np.mean([each.matches for each in scores])))
            key = [row.backbone, row.descriptor, ratio]
            overall.append([*key, mean_accuracy(scores), matches, costs[row.name].ms, costs[row.name].memory_mib])
            by_scene.append([*key, *map(mean_accuracy, of_scene)])
    columns = ['backbone', 'F_0', 'ratio']
    mma = 'MMA@' + '/'.join(map(str, LIMITS_PX)) + ' px'
    paper = [[name, ratio, slashed(accuracy), matches] for name, ratio, accuracy, matches in PAPER]
    return [
        f'## All {len(scores)} pairs',
        report.table([*columns, mma, 'matches, mean', 'ms a pair of 640x480', 'MiB'], overall),
        f'## {mma} of each scene',
        report.table([*columns, *scenes], by_scene),
        '## The paper on HPatches',
        'Other images: 108 scenes, most of them with smaller changes than these. Not to be compared row by row.',
        report.table(['method', 'ratio', mma, 'matches'], paper),
    ]


def mean_accuracy(scores: list[Score]) -> str:
    return slashed(np.mean([each.accuracy for each in scores], axis=0))


def slashed(values) -> str:
    return ' / '.join(f'{value:.2f}' for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with the data sets')
    parser.add_argument(
        '--teacher', default='', metavar='WEIGHTS', help='as matcher.gcm.descriptor; none: no such rows'
    )
    parser.add_argument('--student', default='', metavar='WEIGHTS', help='the same for the student')
    parser.add_argument('--squeezenet', default='', metavar='FILE', help="SqueezeNet 1.1 in torchvision's layout")
    parser.add_argument('--rows', nargs='+', metavar='TEXT', help='only rows whose name has one of these; only print')
    parser.add_argument('--cost-of', help=argparse.SUPPRESS)  # the child process that measures time and memory
    options = parser.parse_args()
    prepare_process()
    if options.cost_of:
        print(*cost(Row(*json.loads(options.cost_of)), options.data))
        return
    rows = all_rows(options.teacher, options.student, options.squeezenet)
    if options.rows:
        rows = [row for row in rows if any(text in row.name for text in options.rows)]
    load = os.getloadavg()[0]
    costs = {row.name: cost_in_a_process(row, options.data) for row in rows}
    parts = tables(rows, measure(rows, options.data), costs)
    text = '\n\n'.join(
        ['# Rows of GCM', introduction(), f'{report.circumstances()}\n* load average: {load:.1f}', *parts]
    )
    if options.rows:
        print(text)
    else:
        report.write('gcm.md', text + '\n')


def introduction() -> str:
    return (
        '`make accuracy-gcm`. Oxford affine, images 1 to 2-6 of each scene. All matches, no Lucas-Kanade. MMA: share '
        'of the matches of a pair with at most that error, mean over pairs, 0 for a pair without matches. Memory: what '
        'the matcher and the first pair add to a process that has matched something small.'
    )


if __name__ == '__main__':
    main()
