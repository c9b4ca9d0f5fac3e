"""The part of `loftr_ros evaluate` with --odometry: trajectories of a folder or a bag, and their report."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from loftr_ros.commands.evaluating import each_source, end, evaluate_each, selection
from loftr_ros.commands.options import read_config
from loftr_ros.commands.output import print_table
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
    config = override(read_config(options), {'input.pairing': 'odometry', 'odometry.rig': options.odometry})
    for line in prepare_process(config.matcher.keep_memory):
        logger.info(line)
    sources = [OdometryOfSource(each, config) for each in each_source(options)]
    tables, faults = {}, {}
    for source, name, summary, about in evaluate_each(sources, options.matchers or ['default'], options, config):
        tables.setdefault(source, [HEADER]).append(_row(name, summary, about['times']))
        faults[source] = [*about['faults_of_the_source'], *about['dropped']]
    for source, table in tables.items():
        if len(tables) > 1:
            print(f'{source.name}:')
        print_table(table)
    print(EXPLANATION)
    return end(options, [text for texts in faults.values() for text in texts])


class OdometryOfSource:
    """The motion over all frames of a source (evaluating.Evaluation)."""

    def __init__(self, options, config):
        self.options, self.config = options, config
        self.source = self._open()
        self.name, self.count = self.source.name, self.source.count

    def _open(self):
        from loftr_ros.evaluation.sources import open_source

        return open_source(self.options.source, self.options.odometry, self.config, **self._arguments)

    @property
    def _arguments(self) -> dict:
        return {
            'truth': self.options.truth,
            'image_topics': self.options.topics,
            'depth_topic': self.options.depth_topic,
            'speed_topic': self.options.speed_topic,
            'camera_files': self.options.camera_info,
        }

    def jobs(self, matcher: str, is_split: bool) -> list:
        from loftr_ros.evaluation.jobs import compute_odometry

        options = self.options
        return [partial(compute_odometry, options.source, options.odometry, matcher, self.config, self._arguments)]

    def finish(self, matcher: str, parts: list, folder: Path | None) -> tuple[dict, dict]:
        from loftr_ros.evaluation import rerun_files, results
        from loftr_ros.evaluation.odometry_run import score
        from loftr_ros.evaluation.report import write_report

        [(found, faults, worker)] = parts
        if not found.rows:
            reasons = '; '.join([*faults, *found.dropped])
            raise InputError(f'{self.options.source} gave no set of frames: {reasons or "it has none"}')
        truth = self.source.truth_at(found.stamps_ns)
        result = None if truth is None else score(found, truth)
        summary = results.summarise(found, result)
        times = results.times(found)
        about = results.circumstances(selection(self.options), worker, times, found.dropped, faults)
        if folder:
            results.write_results(folder, found, result, self.config, summary, about)
            if self.options.export:
                rerun_files.write_odometry(folder / 'report.rrd', found, result)
            title = f'{self.name}: odometry of a {self.options.odometry} rig with {matcher}'
            write_report(folder / results.REPORT, title, found, result, summary, about)
        return summary, about


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
