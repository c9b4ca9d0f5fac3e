"""What `loftr_ros evaluate` does for pairs and with --odometry alike: its sources, matchers and jobs, and its end."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from loftr_ros.commands.output import progress_bar
from loftr_ros.errors import InputError

BROKEN = 3
"""Exit status when part of a source could not be read; the rest was evaluated."""

SELECTING = (
    *('source', 'odometry', 'truth', 'topics', 'depth_topic', 'speed_topic', 'camera_info'),
    *('images', 'step', 'max_pairs', 'export'),
)
"""Arguments of `evaluate` that select what is evaluated and written."""


class Evaluation(Protocol):
    """One source, opened.

    Args:
        options: of the command, with this source as `source` and the folder for its results as `output`, or None.
        count: number of pairs or frames; None where it is not known before.
    """

    options: argparse.Namespace
    name: str
    count: int | None

    def jobs(self, matcher: str, is_split: bool) -> list:
        """Return the jobs of a matcher (backends.Job), several if `is_split` and that is possible."""

    def finish(self, matcher: str, parts: list, folder: Path | None) -> tuple[dict, dict]:
        """Write the results of the jobs if there is a folder, and return their summary and circumstances."""


class Evaluated(NamedTuple):
    """One matcher with one source: summary and circumstances, as of evaluation/results.py."""

    evaluation: Evaluation
    matcher: str
    summary: dict
    about: dict


def check_export(options) -> None:
    """Check before the work that what --export names can be written.

    Raises:
        InputError: not in this mode, or without a folder.
        MissingDependencyError: a package is not installed.
    """
    wrong = sorted({'colmap', 'hdf5'}.intersection(options.export)) if options.odometry else []
    if wrong:
        raise InputError(f'--export {wrong[0]} is for pairs of images, not for --odometry, which has rrd')
    if options.export and not options.output:
        raise InputError('--export needs a folder: add --output FOLDER')
    if 'rrd' in options.export:
        from loftr_ros.evaluation.rerun_files import import_rerun

        import_rerun()


def choose_output(options) -> None:
    """Set --output for --runs: a new folder in it; with --resume the one that its link `latest` names."""
    from loftr_ros.evaluation import results

    if options.runs:
        latest = options.runs / results.LATEST
        going_on = options.resume and latest.is_dir()
        options.output = options.runs / latest.resolve().name if going_on else results.new_run(options.runs)


def each_source(options) -> list[argparse.Namespace]:
    """Return the options of each source: with several of them, each has a folder in --output."""
    if len(options.sources) == 1:
        return [argparse.Namespace(**vars(options), source=options.sources[0])]
    names = [source.resolve().name for source in options.sources]
    if len(set(names)) < len(names):
        raise InputError(
            f'the folders of results are named after the sources, and two of {names} are equal; rename one'
        )
    if options.truth and Path(options.truth).is_file():
        raise InputError(f'{options.truth} is the truth of one source, got {len(names)}; evaluate them one by one')
    return [
        argparse.Namespace(**vars(options) | {'source': source, 'output': options.output and options.output / name})
        for source, name in zip(options.sources, names, strict=True)
    ]


def selection(options) -> dict[str, str]:
    """Return the arguments of SELECTING, by which a later run knows whether it would do the same."""
    return {name: str(getattr(options, name)) for name in SELECTING}


def evaluate_each(evaluations: list[Evaluation], matchers, options, config) -> Iterator[Evaluated]:
    """Evaluate each source with each matcher; with --resume, what is complete in --output is taken from there."""
    from loftr_ros.evaluation import results
    from loftr_ros.evaluation.backends import create_backend

    if options.resume and not options.output:
        raise InputError('--resume needs a folder: add --output FOLDER')
    backend = create_backend(options.backend, options.jobs, config.matcher.keep_memory)
    planned, jobs = [], []
    for evaluation, name in itertools.product(evaluations, matchers):
        folder = evaluation.options.output and evaluation.options.output / results.folder_name(name)
        done = results.read_done(folder, config, selection(evaluation.options)) if options.resume else None
        own = [] if done else evaluation.jobs(name, backend.splits)
        planned.append((evaluation, name, folder, done, range(len(jobs), len(jobs) + len(own))))
        jobs += own
    if options.runs:
        results.link_latest(options.output)

    done_frames = [0] * len(jobs)

    def report(number: int, done: int) -> None:  # to the bar that is shown below
        done_frames[number] = done
        if number in shown:
            advance(sum(done_frames[number] for number in shown))

    with contextlib.closing(backend.run(jobs, report)) as found:
        for evaluation, name, folder, done, shown in planned:
            if done:
                print(f'{name}: taken from {folder}')
                yield Evaluated(evaluation, name, *done)
                continue
            with progress_bar(f'{evaluation.name}, {name}', evaluation.count) as advance:
                parts = list(itertools.islice(found, len(shown)))
            yield Evaluated(evaluation, name, *evaluation.finish(name, parts, folder))


def end(options, faults: list[str]) -> int:
    """Print where the results are and what could not be read, and return the exit status."""
    if options.output:
        of_source = 'a folder for each source, with ' if len(options.sources) > 1 else ''
        print(f'wrote {options.output}: {of_source}a folder for each matcher, with report.html')
    for text in faults:
        print(f'NOT READ {text}')
    return BROKEN if faults else 0
