"""What `loftr_ros evaluate` does for pairs and with --odometry alike: one matcher after the other, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from loftr_ros.errors import InputError

BROKEN = 3
"""Exit status when part of the source could not be read; the rest was evaluated."""

SELECTING = (
    *('source', 'odometry', 'truth', 'topics', 'depth_topic', 'speed_topic', 'camera_info'),
    *('images', 'step', 'max_pairs', 'export'),
)
"""Arguments of `evaluate` that select what is evaluated and written."""


def selection(options) -> dict[str, str]:
    """Return the arguments of SELECTING, by which a later run knows whether it would do the same."""
    return {name: str(getattr(options, name)) for name in SELECTING}


def each_matcher(
    names, options, config, evaluate: Callable[[str, Path | None], tuple[dict, dict]]
) -> Iterator[tuple[str, dict, dict]]:
    """Yield name, summary and circumstances; with --resume those that are complete in --output are not evaluated.

    Args:
        evaluate: called with the name of a matcher and the folder for its results, None without --output.
    """
    from loftr_ros.evaluation import results

    if options.resume and not options.output:
        raise InputError('--resume needs a folder: add --output FOLDER')
    for name in names:
        folder = options.output and options.output / results.folder_name(name)
        done = results.read_done(folder, config, selection(options)) if options.resume else None
        if done:
            print(f'{name}: taken from {folder}')
        yield name, *(done or evaluate(name, folder))


def end(options, faults: list[str]) -> int:
    """Print where the results are and what could not be read, and return the exit status."""
    if options.output:
        print(f'wrote {options.output}: a folder for each matcher, with report.html')
    for text in faults:
        print(f'NOT READ {text}')
    return BROKEN if faults else 0
