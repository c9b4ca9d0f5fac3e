"""Match two image files and write the matches as a picture, NumPy arrays or a table."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from loftr_ros.commands.options import add_config_arguments, read_config
from loftr_ros.errors import InputError
from loftr_ros.image_files import read_image
from loftr_ros.levels import Levels
from loftr_ros.output_files import write_image, writing
from loftr_ros.runtime import prepare_process

logger = logging.getLogger(__name__)

HEADER = 'x0_px,y0_px,x1_px,y1_px,confidence,sigma_px'


def add_arguments(parser) -> None:
    parser.add_argument('image0', type=Path, help='reference image; its EXIF orientation is not applied')
    parser.add_argument('image1', type=Path, help='image to match with it')
    parser.add_argument(
        '-o',
        '--output',
        type=Path,
        help='.png or .jpg: a picture; .npz: keypoints0, keypoints1, confidence, sigma_px; .csv: one match a line',
    )
    add_config_arguments(parser)


def run(options) -> None:
    from loftr_ros.matchers import create_matcher

    writers = {'.png': write_picture, '.jpg': write_picture, '.npz': write_arrays, '.csv': write_table}
    if options.output and options.output.suffix not in writers:
        raise InputError(f'output {options.output} must end in one of {", ".join(writers)}')
    levels = Levels()  # one for both, so that the grey values of two images of one camera stay comparable
    images = [read_image(file, levels) for file in (options.image0, options.image1)]
    config = read_config(options).matcher
    for line in prepare_process(config.keep_memory):
        logger.info(line)
    matcher = create_matcher(config)
    started = time.perf_counter()
    matches = matcher.match(*(matcher.extract(image) for image in images))
    print(f'{len(matches)} matches by {matcher.name} in {time.perf_counter() - started:.2f} s')
    if options.output:
        with writing(options.output) as file:
            writers[options.output.suffix](file, images, matches)
        print(f'wrote {options.output}')


def write_picture(path: Path, images, matches) -> None:
    from loftr_ros.evaluation.plots import draw_matches

    write_image(path, draw_matches(*images, matches))


def write_arrays(path: Path, _images, matches) -> None:
    np.savez(
        path,
        keypoints0=matches.keypoints0,
        keypoints1=matches.keypoints1,
        confidence=matches.confidence,
        sigma_px=matches.sigma_px,
    )


def write_table(path: Path, _images, matches) -> None:
    rows = np.column_stack([matches.keypoints0, matches.keypoints1, matches.confidence, matches.sigma_px])
    np.savetxt(path, rows, delimiter=',', header=HEADER, comments='', fmt='%.4f')
