"""The part of `loftr_ros evaluate` with --odometry: trajectories of a folder or a bag, and their report."""

from __future__ import annotations

import logging
from pathlib import Path

from loftr_ros.commands.evaluating import each_matcher, end, selection
from loftr_ros.commands.options import read_config
from loftr_ros.commands.output import print_table, progress_bar
from loftr_ros.errors import InputError
from loftr_ros.runtime import prepare_process
from loftr_ros.settings import override

logger = logging.getLogger(__name__)

HEADER = (
    'matcher',
    'poses',
    'segments',
    'keyframes',
    'ATE m',
    'ATE %',
    'drift %',
    'deg/m',
    'NEES',
    'match ms',
    'other ms',
)
EXPLANATION = """ATE: root mean square of the position errors after alignment, also as a share of the path; drift over
the lengths in summary.json; NEES: mean squared error over the covariance for each degree of freedom (1 where it is
right); medians of the time of matching and of everything else."""


def run(options) -> int:
    """Evaluate each matcher; return BROKEN if the source is broken somewhere."""
    if options.export:
        raise InputError('--export is for pairs of images, not for --odometry')
    config = override(read_config(options), {'input.pairing': 'odometry', 'odometry.rig': options.odometry})
    for line in prepare_process(config.matcher.keep_memory):
        logger.info(line)
    table, faults = [], []

    def evaluate(name: str, folder: Path | None) -> tuple[dict, dict]:
        return _evaluate(name, folder, config, options)

    for name, summary, about in each_matcher(options.matchers or ['default'], options, config, evaluate):
        table.append(_row(name, summary, about['times']))
        faults = [*about['faults_of_the_source'], *about['dropped']]
    print_table([HEADER, *table])
    print(EXPLANATION)
    return end(options, faults)


def _evaluate(name: str, folder: Path | None, config, options) -> tuple[dict, dict]:
    """Run a matcher, write its results if there is a folder, and return its summary and circumstances."""
    from loftr_ros.evaluation import results
    from loftr_ros.evaluation.compared import create_compared
    from loftr_ros.evaluation.odometry_run import run_odometry, score
    from loftr_ros.evaluation.report import write_report
    from loftr_ros.evaluation.sources import open_source

    source = _open(open_source, options, config)
    matcher = create_compared(name, config.matcher)
    with progress_bar(f'{source.name}, {name}', source.count) as advance:
        found = run_odometry(source.frame_sets, matcher, config, advance, source.speeds)
    if not found.rows:
        faults = '; '.join([*source.faults, *found.dropped])
        raise InputError(f'{options.source} gave no set of frames: {faults or "it has none"}')
    truth = source.truth_at(found.stamps_ns)
    result = None if truth is None else score(found, truth)
    summary = results.summarise(found, result)
    times = results.times(found)
    about = results.circumstances(found.matcher, selection(options), times, found.dropped, source.faults)
    if folder:
        results.write_results(folder, found, result, config, summary, about)
        title = f'{source.name}: odometry of a {options.odometry} rig with {name}'
        write_report(folder / results.REPORT, title, found, result, summary, about)
    return summary, about


def _open(open_source, options, config):
    return open_source(
        options.source,
        options.odometry,
        config,
        truth=options.truth,
        image_topics=options.topics,
        depth_topic=options.depth_topic,
        speed_topic=options.speed_topic,
        camera_files=options.camera_info,
    )


def _row(name: str, summary: dict, times: dict) -> tuple[str, ...]:
    def figure(key: str, digits: str) -> str:
        value = summary.get(key)
        return '-' if value is None else f'{value:{digits}}'

    return (
        name,
        f'{summary["frames_with_pose"]}/{summary["frames"]}',
        str(summary['segments']),
        str(summary['keyframes']),
        figure('ate_m', '.4f'),
        figure('ate_percent_of_path', '.2f'),
        figure('drift_translation_percent', '.2f'),
        figure('drift_rotation_deg_per_m', '.4f'),
        figure('nees_mean', '.2f'),
        f'{times["match_ms_p50"]:.0f}',
        f'{times["other_ms_p50"]:.0f}',
    )
