"""Speed and memory of LoFTR, Efficient LoFTR and SuperGlue beside kornia and transformers, same weights, on a CPU.

    . scripts/environment.sh && python benchmarks/networks.py [--large]

Weights are random, made such that a shifted photograph has many matches (test/test_*_parity.py). Both run in turn in
one process with the settings of loftr_ros/runtime.py; peak memory is that of a new process. Our times are for the whole
matcher, from uint8 images to Matches; the others start from tensors. SuperGlue is that of the paper with its
SuperPoint, at most 1024 keypoints an image.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from loftr_ros.runtime import prepare_process

TESTS = Path(__file__).parents[1] / 'test'
SIZES = {
    'loftr': [(320, 240), (640, 480)],
    'efficient_loftr': [(320, 256), (640, 480)],
    'superglue': [(320, 240), (640, 480)],
}
LARGE = (1024, 768)
THRESHOLD = 0.1
NUM_KEYPOINTS = 1024
PEERS = {'loftr': 'kornia', 'efficient_loftr': 'transformers', 'superglue': 'transformers'}
DETECTOR_FREE = ('loftr', 'efficient_loftr')
MODULES = {
    'loftr': 'test_loftr_parity',
    'efficient_loftr': 'test_efficient_loftr_parity',
    'superglue': 'test_superglue_parity',
}


# --- What is compared -----------------------------------------------------------------------------------------------


def make_weights(name: str, folder: Path) -> None:
    """Write the same random weights in the format of the peer and in ours."""
    import torch

    from loftr_ros.weights import Checkpoint, save

    with torch.no_grad():
        theirs, ours, *detector = __import__(MODULES[name]).peers()
    torch.save(theirs.state_dict(), folder / f'{name}.pt')
    entry = Checkpoint(name='random', matcher=name, network={})
    if detector:
        path = folder / 'superpoint.safetensors'
        save(path, detector[0].state_dict(), dataclasses.replace(entry, matcher='superpoint'))
        entry = dataclasses.replace(entry, detector=str(path))
    save(folder / f'{name}.safetensors', ours.state_dict(), entry)


def images(name: str, size):
    """Return a photograph and itself shifted, (1, 1, H, W) in [0, 1]."""
    return __import__(MODULES[name if name in DETECTOR_FREE else 'loftr']).shifted_photo(*size)


def peer(name: str, folder: Path, size):
    """Return a function that matches the pair by the peer and returns the number of matches."""
    import torch

    state = torch.load(folder / f'{name}.pt', weights_only=True)
    pair = images(name, size)
    if name == 'loftr':
        import kornia.feature
        from kornia.feature.loftr.loftr import default_cfg

        coarse = {**default_cfg['match_coarse'], 'thr': THRESHOLD}
        network = kornia.feature.LoFTR(pretrained=None, config={**default_cfg, 'match_coarse': coarse})
        network.load_state_dict(state)
        network.eval()
        return lambda: len(network({'image0': pair[0], 'image1': pair[1]})['confidence'])
    import transformers

    if name == 'superglue':
        detector = transformers.SuperPointConfig(max_keypoints=NUM_KEYPOINTS)
        config = transformers.SuperGlueConfig(keypoint_detector_config=detector, matching_threshold=THRESHOLD)
        network = transformers.SuperGlueForKeypointMatching(config)
    else:
        config = transformers.EfficientLoFTRConfig(coarse_matching_threshold=THRESHOLD)
        network = transformers.EfficientLoFTRForKeypointMatching(config)
    network.load_state_dict(state)
    network.eval()
    both = torch.stack(pair, 1).expand(1, 2, 3, *pair[0].shape[2:])
    return lambda: int((network(both).matches[0, 1] >= 0).sum())


def authors(folder: Path, size):
    """Return a function that matches the pair by the authors' code of Efficient LoFTR, and returns the number."""
    from test_efficient_loftr_official import official

    from loftr_ros.weights.convert import load_network

    ours, _ = load_network('efficient_loftr', str(folder / 'efficient_loftr.safetensors'), False)
    network = official(ours)
    pair = dict(zip(('image0', 'image1'), images('efficient_loftr', size), strict=True))

    def run() -> int:
        data = dict(pair)
        network(data)
        return len(data['mconf'])

    return run


def ours(name: str, folder: Path, size, **settings):
    """Return functions that match the pair without cached features, and with those of image 0."""
    from loftr_ros.config import KeypointConfig, MatcherConfig
    from loftr_ros.matchers import create_matcher, match_images

    weights = str(folder / f'{name}.safetensors')
    settings = {'match_threshold': THRESHOLD, 'max_matches': 0, 'device': 'cpu', 'subpixel': 'none', **settings}
    keypoints = KeypointConfig(max_keypoints=NUM_KEYPOINTS)
    matcher = create_matcher(MatcherConfig(name=name, weights=weights, keypoints=keypoints, **settings))
    pair = [(255 * image[0, 0]).round().byte().numpy() for image in images(name, size)]
    keyframe = []

    def video():
        keyframe[:] = keyframe or [matcher.extract(pair[0])]
        return len(matcher.match(keyframe[0], matcher.extract(pair[1])))

    return lambda: len(match_images(matcher, *pair)), video


# --- Timing ---------------------------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """Times of one function [ms] and its last result."""

    median: float
    least: float
    cpu: float  # least time on all cores, which hardly depends on other programs
    result: int


def interleaved(functions: dict, rounds: int) -> dict[str, Timing]:
    """Return the timing of each function. They take turns; the first round is not measured."""
    import numpy as np
    import torch

    wall, cpu, results = ({label: [] for label in functions} for _ in range(3))
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for label, function in functions.items():
                started = time.perf_counter(), time.process_time()
                results[label] = function()
                wall[label].append(1e3 * (time.perf_counter() - started[0]))
                cpu[label].append(1e3 * (time.process_time() - started[1]))
    return {
        label: Timing(float(np.median(wall[label][1:])), min(wall[label][1:]), min(cpu[label][1:]), results[label])
        for label in functions
    }


def rows_of(found: dict[str, Timing], *first) -> list[list]:
    """Return rows label, median, least, its ratio to the first function, CPU, its ratio."""
    base = next(iter(found.values()))
    return [
        [*first, label, round(t.median), round(t.least), t.least / base.least, round(t.cpu), t.cpu / base.cpu]
        for label, t in found.items()
    ]


COLUMNS = ['median [ms]', 'least [ms]', 'ratio', 'CPU [ms]', 'ratio of CPU']
TIME_COLUMNS = ['size', 'what', *COLUMNS, 'matches']


def compare(name: str, folder: Path, sizes, rounds: int) -> list[list]:
    """Return rows for the peer and ours, at most three rounds for the largest size."""
    import torch

    from loftr_ros.matchers.precision import cpu_has_units

    def in_bf16(function):
        with torch.autocast('cpu', torch.bfloat16):
            return function()

    rows = []
    kinds = ['fp32', *(['bf16'] if cpu_has_units(torch.bfloat16) else [])]
    for size in sizes:
        theirs = peer(name, folder, size)
        functions = {f'{PEERS[name]}, fp32': theirs}
        if 'bf16' in kinds:
            functions[f'{PEERS[name]}, bf16 autocast'] = functools.partial(in_bf16, theirs)
        if name == 'efficient_loftr':
            functions["the authors' code, fp32"] = authors(folder, size)
        for kind in kinds:
            functions[f'ours, {kind}, pair'], functions[f'ours, {kind}, video'] = ours(
                name, folder, size, precision=kind
            )
        found = interleaved(functions, min(rounds, 3) if size == LARGE else rounds)
        rows += [
            [*row, t.result] for row, t in zip(rows_of(found, f'{size[0]}x{size[1]}'), found.values(), strict=True)
        ]
    return rows


# --- What each trick gains ------------------------------------------------------------------------------------------


def tricks_of_loftr(folder: Path, size) -> dict:
    import torch

    from loftr_ros.weights.convert import load_network

    plain, _ = load_network('loftr', str(folder / 'loftr.safetensors'), False)
    pair = images('loftr', size)
    networks = {
        'as trained, weights (O, I, 3, 3)': plain,
        'channels last': copy.deepcopy(plain).to(memory_format=torch.channels_last),
        'batch norms folded, channels last': copy.deepcopy(plain).prepare_for_inference(plain=True),
        'and Winograd (the default in fp32)': copy.deepcopy(plain).prepare_for_inference(),
    }
    functions = {label: lambda n=n: len(n(*pair, THRESHOLD).index0) for label, n in networks.items()}
    fastest = networks['and Winograd (the default in fp32)']
    with torch.inference_mode():
        known = fastest.extract(pair[0])
    functions['and features of image 0 known'] = lambda: len(
        fastest.match(known, fastest.extract(pair[1]), THRESHOLD).index0
    )
    return functions


def tricks_of_efficient_loftr(folder: Path, size) -> dict:
    import torch

    from loftr_ros.networks import two_stage_refinement
    from loftr_ros.weights.convert import load_network

    plain, _ = load_network('efficient_loftr', str(folder / 'efficient_loftr.safetensors'), False)
    fused = copy.deepcopy(plain).prepare_for_inference()
    pair = images('efficient_loftr', size)

    @contextlib.contextmanager
    def whole_fine_map():
        share, two_stage_refinement.DENSE_ABOVE = two_stage_refinement.DENSE_ABOVE, -1.0
        try:
            yield
        finally:
            two_stage_refinement.DENSE_ABOVE = share

    def run(network, context=contextlib.nullcontext):
        with context():
            return len(network(*pair, THRESHOLD).index0)

    with torch.inference_mode():
        known = fused.extract(pair[0])
    return {
        'as trained, whole fine map': lambda: run(plain, whole_fine_map),
        'branches fused': lambda: run(fused, whole_fine_map),
        'and fine map only around matches (the default)': lambda: run(fused),
        'and features of image 0 known': lambda: len(fused.match(known, fused.extract(pair[1]), THRESHOLD).index0),
    }


def tricks(name: str, folder: Path, size, rounds: int) -> list[list]:
    functions = {'loftr': tricks_of_loftr, 'efficient_loftr': tricks_of_efficient_loftr}[name](folder, size)
    return rows_of(interleaved(functions, rounds))


def by_engine(name: str, folder: Path, size, rounds: int) -> list[list]:
    """Return rows for the features of one image by each engine that is installed."""
    from loftr_ros.config import MatcherConfig
    from loftr_ros.errors import MissingDependencyError
    from loftr_ros.matchers import create_matcher
    from loftr_ros.matchers.engines import ENGINES

    image = (255 * images(name, size)[0][0, 0]).round().byte().numpy()
    functions = {}
    for engine in ('torch', *ENGINES):
        with contextlib.suppress(MissingDependencyError):
            settings = {'device': 'cpu', 'precision': 'fp32', 'engine': engine, 'subpixel': 'none'}
            matcher = create_matcher(MatcherConfig(name, str(folder / f'{name}.safetensors'), **settings))
            functions[engine] = lambda extract=matcher.extract: extract(image).image.width
    return rows_of(interleaved(functions, rounds), name)


# --- Fresh processes ------------------------------------------------------------------------------------------------


def alone(name: str, what: str, size, folder: Path, keep_memory: bool = True, rounds: int = 1) -> dict:
    """Run `what` (peer or ours) in a separate process; return its least time [ms] and peak memory [MiB]."""
    command = [sys.executable, __file__, '--alone', name, what, f'{size[0]}x{size[1]}', str(folder)]
    command += ['--rounds', str(rounds), *([] if keep_memory else ['--give-memory-back'])]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f'{" ".join(command)} failed:\n{ended.stderr}')
    return json.loads(ended.stdout.splitlines()[-1])


def run_alone(name: str, what: str, size: str, folder: str, rounds: int) -> None:
    size, folder = tuple(map(int, size.split('x'))), Path(folder)
    function = peer(name, folder, size) if what == 'peer' else ours(name, folder, size)[0]
    timing = interleaved({what: function}, rounds)[what]
    # Not ru_maxrss, which begins with the size of the parent.
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    peak = int(status['VmHWM'].split()[0]) / 1024
    print(json.dumps({'ms': timing.least, 'cpu': timing.cpu, 'peak': peak}))


def memory(folder: Path, sizes) -> list[list]:
    rows = []
    for name, theirs in PEERS.items():
        for size in sizes:
            peaks = [alone(name, what, size, folder)['peak'] for what in ('peer', 'ours')]
            rows.append([f'{size[0]}x{size[1]}', name, theirs, *map(round, peaks), peaks[1] / peaks[0]])
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def allocator(folder: Path, size) -> list[list]:
    """Return rows without and with the setting of glibc; processes take turns."""
    rows = []
    for name in PEERS:
        found = {False: [], True: []}
        for _ in range(2):
            for keep in found:
                found[keep].append(alone(name, 'ours', size, folder, keep, rounds=2))
        for keep, word in ((False, 'given back'), (True, 'kept')):
            least = {key: round(min(run[key] for run in found[keep])) for key in ('ms', 'cpu', 'peak')}
            rows.append([name, word, least['ms'], least['cpu'], least['peak']])
    return rows


# --- The report -----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--large', action='store_true', help='also time 1024x768')
    parser.add_argument('--only', choices=PEERS, help='only time this network, and only print it')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--give-memory-back', action='store_true', help="leave glibc's allocator as it is")
    parser.add_argument('--alone', nargs=4, metavar=('NAME', 'WHAT', 'SIZE', 'FOLDER'), help='run of the child process')
    options = parser.parse_args()
    settings = prepare_process(keep_memory=not options.give_memory_back)
    sys.path.insert(0, str(TESTS))
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    if options.alone:
        run_alone(*options.alone, options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.only:
            import report

            make_weights(options.only, Path(folder))
            rows = compare(options.only, Path(folder), SIZES[options.only], options.rounds)
            print(report.table(TIME_COLUMNS, rows))
            return
        write_report(Path(folder), options, settings)


def write_report(folder: Path, options, settings: list[str]) -> None:
    """Write the report again after each part, so that an interrupted run leaves its results."""
    import report

    vga, rounds, parts = (640, 480), options.rounds, []

    def add(title: str, header: list[str], rows: list[list]) -> None:
        parts.append(f'## {title}\n\n{report.table(header, rows)}')
        report.write('networks.md', '\n\n'.join(parts) + '\n')

    parts += [
        '# LoFTR, Efficient LoFTR and SuperGlue against their peers',
        f'`python benchmarks/networks.py{" --large" if options.large else ""}`. ' + __doc__.split('\n\n')[2].strip(),
        report.circumstances() + ''.join(f'\n* {line}' for line in settings),
        'Targets at 640x480: LoFTR 0.7 of kornia for a pair, 0.45 in video; Efficient LoFTR 0.5 of transformers for a '
        'pair; SuperGlue 0.5 of transformers for a pair, 0.3 in video; half of the memory of kornia at 1024x768. '
        '`matcher.precision: auto` takes bf16 where the CPU has units '
        'for it. Video: one new frame, features of the keyframe known. CPU: time on all cores, which other programs on '
        'the machine hardly lengthen.',
    ]
    for name, sizes in SIZES.items():
        make_weights(name, folder)
        rows = compare(name, folder, [*sizes, *([LARGE] if options.large else [])], rounds)
        add(f'{name}: time', TIME_COLUMNS, rows)
    header = ['size', 'network', 'peer', 'its peak', 'our peak', 'ratio']
    add('Peak memory of a process that matches one pair [MiB]', header, memory(folder, [vga, LARGE]))
    for name in DETECTOR_FREE:
        add(f'{name}: what each step gains, a pair of 640x480', ['step', *COLUMNS], tricks(name, folder, vga, rounds))
    header = ['network', 'memory', 'least [ms]', 'CPU [ms]', 'peak [MiB]']
    add('Freed memory kept by glibc or given back, fresh processes, ours', header, allocator(folder, vga))
    rows = [row for name in DETECTOR_FREE for row in by_engine(name, folder, vga, rounds)]
    add(
        'Features of one image of 640x480 by `matcher.engine`, of those installed',
        ['network', 'engine', *COLUMNS],
        rows,
    )


if __name__ == '__main__':
    main()
