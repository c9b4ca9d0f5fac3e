"""Compare matchers on pairs of images, or with --odometry on the trajectory of all frames.

SOURCE is a folder with calibrations that `loftr_ros play` can open (KITTI odometry, EuRoC, TartanAir, TUM RGB-D,
ScanNet, a COLMAP text model, the output of `loftr_ros demo`); pairs need true poses. Or a list of pairs: SuperGlue's
with 38 columns (.txt), LoFTR's index (.npz), a folder of HPatches. With --odometry it may be a rosbag too (ROS 1,
sqlite3, mcap). --output gets figures, tables and report.html for each matcher. --jobs N does N parts of the work at the
same time.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from loftr_ros.commands.evaluating import check_export, choose_output, each_source, end, evaluate_each, selection
from loftr_ros.commands.options import add_config_arguments, read_config
from loftr_ros.commands.output import print_table
from loftr_ros.errors import InputError
from loftr_ros.runtime import prepare_process

logger = logging.getLogger(__name__)

MATCHERS = ('default', 'sift', 'sift+lk', 'orb', 'orb+lk')
HEADER = (
    'matcher',
    'AUC@5/10/20',
    'RANSAC',
    'rotation',
    'direction',
    'inliers',
    'correct',
    'matches',
    'failures',
    'ms',
)
EXPLANATION = """AUC of the pose error at 5, 10 and 20 degrees, and the same by OpenCV's RANSAC with 0.5 px, as in the
papers; medians of the rest: errors of rotation and direction [deg], inliers, matches correct within 2 px under the true
pose, all matches, time of a pair [ms]. Failures: no pose."""
HOMOGRAPHY_HEADER = ('matcher', 'AUC@3/5/10', 'MMA@1/3/5/10', 'correct', 'matches', 'failures', 'ms')
HOMOGRAPHY_EXPLANATION = """AUC of the mean error of the corners at 3, 5 and 10 px, of a homography by OpenCV's RANSAC
with 3 px; mean matching accuracy within 1, 3, 5 and 10 px; medians of the matches correct within 3 px, all matches, and
the time of a pair [ms]. Failures: no homography."""


def add_arguments(parser) -> None:
    parser.add_argument(
        'sources', nargs='+', type=Path, metavar='SOURCE', help='with several, each gets a folder in --output'
    )
    parser.add_argument(
        '--matchers',
        nargs='+',
        metavar='NAME',
        help='names of matcher.name, NAME:WEIGHTS, sift, orb; sift+lk, orb+lk: refined by Lucas-Kanade, as the others; '
        f'default: {" ".join(MATCHERS)}, with --odometry: default',
    )
    parser.add_argument(
        '--odometry', choices=('mono', 'stereo', 'rgbd'), help='compute the motion over all frames with this rig'
    )
    parser.add_argument(
        '--truth',
        default='',
        metavar='FILE|TOPIC',
        help='true trajectory: a file in TUM format, a topic of the bag, or a transform of it: /tf:PARENT:CHILD',
    )
    parser.add_argument('--topics', nargs='+', default=[], metavar='TOPIC', help='image topics of the bag: one, or two')
    parser.add_argument('--depth-topic', default='', metavar='TOPIC', help='depth images of the bag')
    parser.add_argument(
        '--speed-topic',
        default='',
        metavar='TOPIC',
        help='velocity of the robot in the bag (Odometry, TwistStamped, ...): the lengths of one camera become metres',
    )
    parser.add_argument(
        '--camera-info', type=Path, nargs='+', default=[], metavar='YAML', help='calibrations, as for `loftr_ros play`'
    )
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER', help='what the paths in a list are relative to; default: its folder'
    )
    parser.add_argument('--step', type=int, default=1, help='frames from image 0 to image 1; 0: left and right image')
    parser.add_argument('--max-pairs', type=int, default=0, help='largest number of pairs; 0: all')
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        '-o', '--output', type=Path, metavar='FOLDER', help='write the results of each matcher to a folder in it'
    )
    places.add_argument(
        '--runs',
        type=Path,
        metavar='FOLDER',
        help='the same in a new folder in it, named after the time; its link `latest` leads to the newest',
    )
    parser.add_argument(
        '--export',
        nargs='+',
        choices=('colmap', 'hdf5', 'rrd'),
        default=[],
        help="also write the matches of pairs: a database of COLMAP, hloc's HDF5 files; or what the report shows, "
        'of pairs or of odometry, for the viewer of rerun (pip install loftr_ros[rerun])',
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='take the results that are complete in --output, or in the newest of --runs, and compute the others',
    )
    parser.add_argument(
        '--backend',
        choices=('processes', 'ray'),
        default='processes',
        help='processes of this machine; or a cluster of Ray (pip install loftr_ros[ray]): that of RAY_ADDRESS, whose '
        'machines need this package and SOURCE at the same path, or a new one on this machine',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        metavar='N',
        help='number of sources, matchers and segments of 50 pairs at the same time, as far as the memory is enough; '
        'default: 1, with Ray all that fit. The results are the same: each job has the threads that the command alone '
        'has. It is faster if they share the cores, with OMP_NUM_THREADS=1 for one job for each core',
    )
    add_config_arguments(parser)


def run(options) -> int:
    choose_output(options)
    check_export(options)
    if options.odometry:
        from loftr_ros.commands import evaluate_odometry

        return evaluate_odometry.run(options)
    if options.step < 0 or options.max_pairs < 0:
        raise InputError(f'--step and --max-pairs must be 0 or more, got {options.step} and {options.max_pairs}')
    for name in ('truth', 'topics', 'depth_topic', 'speed_topic', 'camera_info'):
        if getattr(options, name):
            raise InputError(f'--{name.replace("_", "-")} is only for --odometry')
    config = read_config(options)
    for line in prepare_process(config.matcher.keep_memory):
        logger.info(line)
    sources = [PairsOfSource(each, config) for each in each_source(options)]
    tables, summaries, faults = {}, {}, {}
    for pairs, name, summary, about in evaluate_each(sources, options.matchers or MATCHERS, options, config):
        tables.setdefault(pairs, []).append(_row(name, summary, about['times']['match_ms_p50']))
        summaries[pairs], faults[pairs] = summary, about['dropped']
    for pairs, table in tables.items():
        print(f'{pairs.name}: {summaries[pairs]["pairs"]} pairs')
        print_table([HEADER if pairs.pairs.has_motion else HOMOGRAPHY_HEADER, *table])
        print(EXPLANATION if pairs.pairs.has_motion else HOMOGRAPHY_EXPLANATION)
    return end(options, [text for texts in faults.values() for text in texts])


class PairsOfSource:
    """The pairs of a source (evaluating.Evaluation)."""

    def __init__(self, options, config):
        from loftr_ros.evaluation.pair_run import open_pairs

        self.options, self.config = options, config
        self.pairs = open_pairs(options.source, options.images, options.step)
        if 'colmap' in options.export and not self.pairs.has_motion:
            raise InputError('--export colmap needs calibrated images; a folder of homographies has none')
        self.name = self.pairs.name
        self.count = min(self.pairs.count, options.max_pairs or self.pairs.count)

    def jobs(self, matcher: str, is_split: bool) -> list:
        from loftr_ros.evaluation.jobs import match_pairs, segments

        source = self.options.source, self.options.images, self.options.step
        is_exported = bool({'colmap', 'hdf5'}.intersection(self.options.export))
        # An export is not split: images share a camera if it is the same object.
        return [
            partial(match_pairs, *source, numbers, matcher, self.config, is_exported)
            for numbers in segments(self.count, is_split and not is_exported)
        ]

    def finish(self, matcher: str, parts: list, folder: Path | None) -> tuple[dict, dict]:
        from loftr_ros.evaluation import jobs, pair_run, results

        found = pair_run.join([part.run for part in parts])
        if not found.rows:
            raise InputError(f'{self.options.source} gave no pair: {"; ".join(found.dropped)}')
        summary, times = pair_run.summarise(found), pair_run.times(found)
        about = results.circumstances(selection(self.options), jobs.joined_workers(parts), times, found.dropped, [])
        if folder:
            results.write_pair_results(folder, found, self.config, summary, about)
            self._export(folder, parts)
            self._write_report(folder, matcher, found, summary, about)
        return summary, about

    def _export(self, folder: Path, parts: list) -> None:
        from loftr_ros.exports import write_colmap, write_hdf5

        if 'colmap' in self.options.export:
            write_colmap(folder / 'matches.db', parts[0].matches, parts[0].cameras)
        if 'hdf5' in self.options.export:
            write_hdf5(folder / 'features.h5', folder / 'matches.h5', parts[0].matches)

    def _write_report(self, folder: Path, matcher: str, found, summary: dict, about: dict) -> None:
        """Match the pairs of the pictures again: a run keeps no images."""
        from loftr_ros.evaluation import rerun_files, results
        from loftr_ros.evaluation.jobs import kept_matcher
        from loftr_ros.evaluation.pair_report import examples, write_pair_report
        from loftr_ros.evaluation.pair_run import correct_px, errors_px, match_pair

        shown = {}
        for name, row in examples(found).items():
            pair = self.pairs.load(found.numbers[row])
            shown[name] = found.rows[row], pair, match_pair(kept_matcher(matcher, self.config.matcher), pair)
        if 'rrd' in self.options.export:
            limit_px = correct_px(found.has_motion)
            rerun_files.write_pairs(
                folder / 'report.rrd',
                {
                    name: rerun_files.ShownPair(
                        pair.frame0.image, pair.frame1.image, matches, errors_px(pair, matches) <= limit_px
                    )
                    for name, (_, pair, matches) in shown.items()
                },
            )
        title = f'{self.name}: pairs with {matcher}'
        write_pair_report(folder / results.REPORT, title, found, shown, summary, about)


def _row(name: str, summary: dict, milliseconds: float) -> tuple[str, ...]:
    counts = [summary['correct_median'], summary['matches_median']]
    if 'pose_auc_5_10_20_deg' in summary:
        auc, by_opencv = (_joined(summary[f'pose_auc_5_10_20_deg{ending}']) for ending in ('', '_opencv_ransac_0.5px'))
        angles = (f'{summary[f"{kind}_deg_median"]:.3g}' for kind in ('rotation', 'direction'))
        counts = [summary['inliers_median'], *counts, summary['pairs'] - summary['pairs_with_pose'], milliseconds]
        return name, auc, by_opencv, *angles, *(f'{count:.0f}' for count in counts)
    failures = summary['pairs'] - summary['pairs_with_homography']
    mma = summary['mma_1_to_10_px']
    cells = _joined(summary['homography_auc_3_5_10_px']), _joined([mma[px - 1] for px in (1, 3, 5, 10)])
    return name, *cells, *(f'{count:.0f}' for count in (*counts, failures, milliseconds))


def _joined(values) -> str:
    return '/'.join(f'{value:.2f}' for value in values)
