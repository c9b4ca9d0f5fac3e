"""List the known weights, download them, check a file, or convert a file to safetensors with a description."""

from __future__ import annotations

from pathlib import Path

WHAT = 'a name of `weights list`, a path, or NAME=PATH: your own file for the network of that entry'


def add_arguments(parser) -> None:
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    actions.add_parser('list', help='list the known weights, whether their files are present, and their licences')
    get = actions.add_parser('get', help='download into the cache ($LOFTR_ROS_CACHE, else ~/.cache/loftr_ros)')
    get.add_argument('name', help='a name of `weights list`')
    get.add_argument('--folder', type=Path, help='download into this folder instead')
    get.add_argument('--accept-license', action='store_true', help='also when the licence forbids commercial use')
    check = actions.add_parser('check', help='read a file, compare its hash, load it into its network')
    check.add_argument('weights', help=WHAT)
    convert = actions.add_parser('convert', help='write a safetensors file that can be used by its path alone')
    convert.add_argument('source', metavar='IN', help=WHAT)
    convert.add_argument('target', metavar='OUT', type=Path, help='file to write, ends in .safetensors')


def run(options) -> None:
    {'list': list_weights, 'get': get_weights, 'check': check_weights, 'convert': convert_weights}[options.action](
        options
    )


def list_weights(_options) -> None:
    from loftr_ros.weights.checkpoints import CHECKPOINTS
    from loftr_ros.weights.locate import cache_folder, file_of

    width = max(map(len, CHECKPOINTS))
    for entry in CHECKPOINTS.values():
        state = 'present' if file_of(entry).is_file() else 'download' if entry.url else 'manual'
        print(f'{entry.name:<{width}}  {entry.matcher:<15}  {state:<10}  {entry.licence}')
        print(f'{"":<{width}}  {entry.note}' + ('' if entry.url else f'; {entry.page}'))
    print(f'cache: {cache_folder()}; the first entry of a matcher is its default')


def get_weights(options) -> None:
    from tqdm import tqdm

    from loftr_ros.weights.download import download
    from loftr_ros.weights.locate import check_license, entry_named

    entry = entry_named(options.name)
    print(f'{entry.name}: licence {entry.licence}; {entry.page}')
    check_license(entry, options.accept_license)
    with tqdm(unit='B', unit_scale=True, desc=entry.file) as bar:

        def progress(here: int, total: int) -> None:
            bar.total = total or None
            bar.n = here
            bar.update(0)

        path = download(entry, options.folder, progress)
    print(f'{path}: {"sha256 as published" if entry.sha256 else "complete, but there is no published sha256"}')


def check_weights(options) -> None:
    from loftr_ros.networks import NETWORKS
    from loftr_ros.weights.convert import build_network
    from loftr_ros.weights.files import load_into, load_state
    from loftr_ros.weights.locate import identify, sha256_of

    entry, path = identify(options.weights)
    state = load_state(path)
    digest = sha256_of(path)
    agrees = 'as published' if digest == entry.sha256 else 'not a published file: your own'
    numbers = sum(tensor.numel() for tensor in state.values())
    print(f'{path}: {entry.name} for {entry.matcher}, licence {entry.licence}')
    print(f'sha256 {digest}, {agrees}')
    print(f'{len(state)} tensors, {numbers} numbers')
    print('network ' + ', '.join(f'{key}={value}' for key, value in entry.network.items()))
    if entry.matcher in NETWORKS:
        load_into(build_network(entry), state, path)
        print('fits the network, every tensor')
    else:
        print(f'not loaded: this version has no network for {entry.matcher}')


def convert_weights(options) -> None:
    from loftr_ros.weights.convert import convert

    entry = convert(options.source, options.target)
    print(f'wrote {options.target}: {entry.name} for {entry.matcher}; use it with matcher.weights={options.target}')
