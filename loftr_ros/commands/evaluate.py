"""Compare matchers on pairs of images, or with --odometry on the trajectory of all frames.

SOURCE is a folder with calibrations that `loftr_ros play` can open (KITTI odometry, EuRoC, TartanAir, TUM RGB-D,
ScanNet, a COLMAP text model, the output of `loftr_ros demo`); pairs need true poses. Or a list of pairs: SuperGlue's
with 38 columns (.txt), LoFTR's index (.npz), a folder of HPatches. With --odometry it may be a rosbag too (ROS 1,
sqlite3, mcap). --output gets figures, tables and report.html for each matcher.
"""

from __future__ import annotations

import logging
from pathlib import Path

from loftr_ros.commands.evaluating import each_matcher, end, selection
from loftr_ros.commands.options import add_config_arguments, read_config
from loftr_ros.commands.output import print_table, progress_bar
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
    parser.add_argument('source', type=Path)
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
    parser.add_argument(
        '-o', '--output', type=Path, metavar='FOLDER', help='write the results of each matcher to a folder in it'
    )
    parser.add_argument(
        '--export',
        nargs='+',
        choices=('colmap', 'hdf5'),
        default=[],
        help="also write the matches there: a database of COLMAP, hloc's HDF5 files",
    )
    parser.add_argument(
        '--resume', action='store_true', help='take the results that are complete in --output, and compute the others'
    )
    add_config_arguments(parser)


def run(options) -> int:
    if options.odometry:
        from loftr_ros.commands import evaluate_odometry

        return evaluate_odometry.run(options)
    if options.step < 0 or options.max_pairs < 0:
        raise InputError(f'--step and --max-pairs must be 0 or more, got {options.step} and {options.max_pairs}')
    for name in ('truth', 'topics', 'depth_topic', 'speed_topic', 'camera_info'):
        if getattr(options, name):
            raise InputError(f'--{name.replace("_", "-")} is only for --odometry')
    if options.export and not options.output:
        raise InputError('--export needs a folder: add --output FOLDER')
    config = read_config(options)
    for line in prepare_process(config.matcher.keep_memory):
        logger.info(line)
    pairs = _open(options)
    if 'colmap' in options.export and not pairs.has_motion:
        raise InputError('--export colmap needs calibrated images; a folder of homographies has none')
    table, faults = [], []

    def evaluate(name: str, folder: Path | None) -> tuple[dict, dict]:
        return _evaluate(name, pairs, folder, config, options)

    for name, summary, about in each_matcher(options.matchers or MATCHERS, options, config, evaluate):
        table.append(_row(name, summary, about['times']['match_ms_p50']))
        faults = about['dropped']
    print(f'{pairs.name}: {summary["pairs"]} pairs')
    print_table([HEADER if pairs.has_motion else HOMOGRAPHY_HEADER, *table])
    print(EXPLANATION if pairs.has_motion else HOMOGRAPHY_EXPLANATION)
    return end(options, faults)


def _evaluate(name: str, pairs, folder: Path | None, config, options) -> tuple[dict, dict]:
    """Run a matcher, write its results if there is a folder, and return its summary and circumstances."""
    from loftr_ros.evaluation import pair_run, results
    from loftr_ros.evaluation.compared import create_compared

    matcher = create_compared(name, config.matcher)
    count = min(pairs.count, options.max_pairs or pairs.count)
    exported = _Exported(options.export)
    with progress_bar(f'{pairs.name}, {name}', count) as advance:
        found = pair_run.run_pairs(pairs, count, matcher, config.pose, advance, exported.keep)
    if not found.rows:
        raise InputError(f'{options.source} gave no pair: {"; ".join(found.dropped)}')
    summary = pair_run.summarise(found)
    about = results.circumstances(found.matcher, selection(options), pair_run.times(found), found.dropped, [])
    if folder:
        results.write_pair_results(folder, found, config, summary, about)
        exported.write(folder)
        title = f'{pairs.name}: pairs with {name}'
        _write_report(folder / results.REPORT, title, pairs, matcher, found, summary, about)
    return summary, about


class _Exported:
    """The matches of all pairs, and the cameras of the images.

    Args:
        formats: of --export; without one nothing is kept.
    """

    def __init__(self, formats):
        self.formats = formats
        self.matches, self.cameras = {}, {}

    def keep(self, pair, matches) -> None:
        if self.formats:
            self.matches[pair.names] = matches
            self.cameras |= zip(pair.names, (pair.frame0.camera, pair.frame1.camera), strict=True)

    def write(self, folder: Path) -> None:
        from loftr_ros.exports import write_colmap, write_hdf5

        if 'colmap' in self.formats:
            write_colmap(folder / 'matches.db', self.matches, self.cameras)
        if 'hdf5' in self.formats:
            write_hdf5(folder / 'features.h5', folder / 'matches.h5', self.matches)


def _open(options):
    """Return the PairSet of a list, or of the frames of a sequence."""
    from loftr_ros.datasets import open_sequence
    from loftr_ros.datasets.pair_lists import is_pair_list, read_pair_list
    from loftr_ros.evaluation.pair_run import pairs_of_sequence

    if is_pair_list(options.source):
        return read_pair_list(options.source, options.images)
    if options.images:
        raise InputError(f'--images is only for a list of pairs (.txt, .npz), and {options.source} is none')
    return pairs_of_sequence(open_sequence(options.source), options.step)


def _write_report(path: Path, title: str, pairs, matcher, found, summary: dict, about: dict) -> None:
    """Match the pairs of the pictures again: a run keeps no images."""
    from loftr_ros.evaluation.pair_report import examples, write_pair_report
    from loftr_ros.evaluation.pair_run import match_pair

    shown = {}
    for name, row in examples(found).items():
        pair = pairs.load(found.numbers[row])
        shown[name] = found.rows[row], pair, match_pair(matcher, pair)
    write_pair_report(path, title, found, shown, summary, about)


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
