"""What a worker does for `loftr_ros evaluate`: jobs whose arguments and results can be pickled (backends.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datatypes import Matches
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.evaluation.odometry_run import OdometryRun, run_odometry
from loftr_ros.evaluation.pair_run import PairRun, open_pairs, run_pairs
from loftr_ros.evaluation.results import circumstances_of_worker
from loftr_ros.evaluation.sources import open_source

SEGMENT = 50
"""Pairs in a job, where several are done at the same time: half a minute on a CPU, and some seconds to begin."""

kept_matcher = lru_cache(maxsize=1)(create_compared)
"""`create_compared`, which returns the same matcher until another one is asked for."""


class PairsPart(NamedTuple):
    """What a job found in a segment of the pairs of a source.

    Args:
        matches, cameras: of all pairs by their names, and of their images, to be exported; empty if they are not.
        worker: as of circumstances_of_worker.
    """

    run: PairRun
    matches: dict[tuple[str, str], Matches]
    cameras: dict[str, Camera]
    worker: dict


class OdometryPart(NamedTuple):
    """What a job found in a source.

    Args:
        faults: what could not be read.
        worker: as of circumstances_of_worker.
    """

    run: OdometryRun
    faults: list[str]
    worker: dict


def segments(count: int, is_split: bool) -> list[range]:
    """Return the numbers of all pairs, in segments of SEGMENT or in one."""
    length = SEGMENT if is_split else max(count, 1)
    return [range(start, min(start + length, count)) for start in range(0, count, length)]


def match_pairs(
    source: Path,
    images: Path | None,
    step: int,
    numbers: range,
    matcher: str,
    config: Config,
    is_exported: bool,
    progress: Callable[[int], None],
) -> PairsPart:
    """Match the pairs with these numbers; the source is as of open_pairs, the matcher as of create_compared."""
    matches, cameras = {}, {}

    def keep(pair, found) -> None:
        if is_exported:
            matches[pair.names] = found
            cameras.update(zip(pair.names, (pair.frame0.camera, pair.frame1.camera), strict=True))

    pairs = open_pairs(source, images, step)
    run = run_pairs(pairs, numbers, kept_matcher(matcher, config.matcher), config.pose, progress, keep)
    return PairsPart(run, matches, cameras, circumstances_of_worker(run.matcher))


def compute_odometry(
    source: Path, rig: str, matcher: str, config: Config, arguments: dict, progress: Callable[[int], None]
) -> OdometryPart:
    """Compute the motion over all frames; `arguments` are the others of open_source."""
    opened = open_source(source, rig, config, **arguments)
    run = run_odometry(opened.frame_sets, create_compared(matcher, config.matcher), config, progress, opened.speeds)
    return OdometryPart(run, opened.faults, circumstances_of_worker(run.matcher))


def joined_workers(parts: list[PairsPart]) -> dict:
    """Return the circumstances of the first worker, with the machines of all."""
    machines = dict.fromkeys(part.worker['machine'] for part in parts)
    return parts[0].worker | {'machine': '; '.join(machines)}
