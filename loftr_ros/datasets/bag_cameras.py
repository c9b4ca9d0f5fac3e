"""Which image topics of a bag are cameras, and which calibration file belongs to which of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from loftr_ros.datasets.calibration import camera_from_yaml
from loftr_ros.errors import InputError

TRANSPORTS = ('compressed', 'zstd', 'jpeg', 'png', 'avif')
"""Last words of topics that carry a copy of the image topic above them."""


def info_topic(image_topic: str) -> str:
    """Return where camera_info of an image topic is by convention: beside the image, without the transport."""
    folder, _, last = image_topic.rpartition('/')
    if last in TRANSPORTS:
        folder = folder.rpartition('/')[0]
    return f'{folder}/camera_info'


def cameras(images: Mapping[str, bool]) -> dict[str, str]:
    """Return the topic of camera_info of each camera, by the image topic that stamps it.

    Args:
        images: image topics, and whether each is compressed. Not counted as cameras: depth, compressed copies, and
            further images with the same camera_info.
    """
    pictures = sorted((topic for topic in images if 'depth' not in topic.lower()), key=lambda t: (images[t], t))
    found = {}
    for topic in pictures:
        name = info_topic(topic)
        if name not in found.values():
            found[topic] = name
    return found


def assign(topics: Iterable[str], files: Iterable) -> dict[str, Path]:
    """Return the calibration file of each camera topic that gets one.

    Args:
        topics: the cameras that lack a camera_info.
        files: calibration files, each a path or TOPIC=PATH. There must be one plain path for each topic that no
            TOPIC=PATH names; several are distinguished by the words in their names, or in the names of their folders.

    Raises:
        InputError: another number of files, or names that do not tell.
    """
    topics = sorted(topics)
    assigned, plain = {}, []
    for item in files:
        topic, separator, path = str(item).partition('=')
        if not separator or Path(item).is_file():
            plain.append(Path(item))
            continue
        topic = '/' + topic.lstrip('/')
        if topic not in topics or topic in assigned:
            why = 'is named twice' if topic in assigned else 'is no camera without camera_info'
            raise InputError(f'--camera-info {item}: {topic} {why}; {_these(topics)}')
        assigned[topic] = Path(path)
    rest = [topic for topic in topics if topic not in assigned]
    if plain and len(plain) != len(rest):
        raise InputError(
            f'--camera-info names {len(plain)} files for {len(rest)} cameras; {_these(rest)}: give one file for each, '
            'or TOPIC=FILE for some'
        )
    if len(plain) == 1:
        return assigned | {rest[0]: plain[0]}
    telling = _telling_words(rest)
    for path in plain:
        # The folder distinguishes cam0/sensor.yaml from cam1/sensor.yaml.
        for name in (path.stem, path.absolute().parent.name):
            fitting = [topic for topic, words in telling.items() if words & _words(name)]
            if fitting:
                break
        if len(fitting) != 1 or fitting[0] in assigned:
            raise InputError(
                f'--camera-info: the name of {path} does not tell which camera it is of; {_these(rest)}: '
                'give TOPIC=FILE for each'
            )
        assigned[fitting[0]] = path
    return assigned


def read(topics: Iterable[str], files: Iterable) -> dict:
    """Return the camera of each topic that gets one of the files; see `assign`."""
    return {topic: camera_from_yaml(path) for topic, path in assign(topics, files).items()}


def _these(topics: list[str]) -> str:
    return f'without camera_info there are {", ".join(topics)}' if topics else 'every camera has its camera_info'


def _words(text: str) -> set[str]:
    return set(re.split(r'[^a-z0-9]+', text.lower())) - {''}


def _telling_words(topics: list[str]) -> dict[str, set[str]]:
    """Return of each topic the words that no other has."""
    words = {topic: _words(topic) for topic in topics}
    return {t: words[t].difference(*(other for o, other in words.items() if o != t)) for t in topics}
