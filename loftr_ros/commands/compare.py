"""Compare runs on the same source side by side, of odometry or of pairs, each with the first one by a paired test."""

from __future__ import annotations

from pathlib import Path

from loftr_ros.commands.output import print_table

COLUMNS = {
    'segments': ('segments', 'd'),
    'keyframes': ('keyframes', 'd'),
    'inliers_median': ('inliers', '.0f'),
    'ate_m': ('ATE m', '.4f'),
    'drift_translation_percent': ('drift %', '.2f'),
    'drift_rotation_deg_per_m': ('deg/m', '.4f'),
    'nees_mean': ('NEES', '.2f'),
}
PAIR_COLUMNS = {
    'inliers_median': ('inliers', '.0f'),
    'correct_median': ('correct', '.0f'),
    'pose_auc_5_10_20_deg': ('AUC@5/10/20', '.3f'),
    'homography_auc_3_5_10_px': ('AUC@3/5/10', '.3f'),
    'rotation_nees_median': ('NEES', '.2f'),
}
TIMES = {'match_ms_p50': 'match ms', 'other_ms_p50': 'other ms', 'pose_ms_p50': 'pose ms'}

EXPLANATION = (
    'step: median error of the motion from frame to frame, as a multiple of that of the first run; p: probability of '
    'such a difference if both were equally good (paired permutation test of blocks of 5 frames)'
)
PAIR_EXPLANATION = (
    'error: median error of the pose or of the corners, as a multiple of that of the first run; p: probability of such '
    'a mean difference if both were equally good (paired permutation test; errors above 20 degrees or 10 px count so)'
)


def add_arguments(parser) -> None:
    parser.add_argument(
        'runs',
        nargs='+',
        type=Path,
        metavar='RUN',
        help='folder of one matcher, or of an evaluation with several, as `evaluate -o` writes it',
    )


def run(options) -> None:
    from loftr_ros.errors import InputError
    from loftr_ros.evaluation.comparison import check_same_source, compare, read_run

    runs = [read_run(folder) for given in options.runs for folder in _folders(given)]
    if len(runs) < 2:
        raise InputError(f'{len(runs)} run found in {", ".join(map(str, options.runs))}, at least 2 needed')
    check_same_source(runs)
    names = [saved.folder.name for saved in runs]
    if len(set(names)) < len(names):
        names = [str(saved.folder) for saved in runs]
    of_pairs = bool(runs[0].pair_errors)
    counted = ('pairs_with_pose', 'pairs') if of_pairs else ('frames_with_pose', 'frames')
    columns = {key: column for key, column in (PAIR_COLUMNS if of_pairs else COLUMNS).items() if key in runs[0].summary}
    columns_of_times = {key: title for key, title in TIMES.items() if key in runs[0].times}
    titles = [title for title, _ in columns.values()]
    rows = [('run', 'poses', *titles, *columns_of_times.values(), 'error' if of_pairs else 'step', 'p')]
    for name, saved in zip(names, runs, strict=True):
        cells = [name, '/'.join(str(saved.summary.get(key, '-')) for key in counted)]
        cells += [_cell(saved.summary.get(key), form) for key, (_, form) in columns.items()]
        cells += [_cell(saved.times.get(key), '.0f') for key in columns_of_times]
        found = None if saved is runs[0] else compare(runs[0], saved)
        cells += [_cell(found and found.median_ratio, '.2f'), _cell(found and found.p_value, '.3f')]
        rows.append(tuple(cells))
    print_table(rows)
    print(PAIR_EXPLANATION if of_pairs else EXPLANATION)


def _folders(given: Path) -> list[Path]:
    """Return the folders of the runs in a folder, or the folder itself."""
    if (given / 'summary.json').is_file():
        return [given]
    inside = sorted(path.parent for path in given.glob('*/summary.json') if not path.parent.is_symlink())
    return inside or [given]


def _cell(value, form: str) -> str:
    if isinstance(value, list):
        return '/'.join(format(item, form) for item in value)
    return '-' if value is None else format(value, form)
