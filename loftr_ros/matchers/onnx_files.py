"""Write parts of the networks (networks/parts.py) as ONNX files."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from pathlib import Path

import torch

from loftr_ros.errors import MissingDependencyError
from loftr_ros.networks.parts import Part
from loftr_ros.output_files import writing

OPSET = 17
"""Version of the ONNX operators; ONNX Runtime 1.14, OpenVINO 2023 and TensorRT 8.6 support it."""


def write_onnx(part: Part, path: str | Path) -> Path:
    """Write a part as an ONNX file, for batch size 1 and every image size that the network accepts.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        OutputError: the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('writing ONNX needs the package onnx: pip install onnx') from error
    part = copy.deepcopy(part).float().cpu().eval()
    sides = {
        name: {d: f'{name}_{d}' for d in part.dynamic.get(name, (1, 2))}
        for name in (*part.input_names, *part.output_names)
    }
    options = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with torch.no_grad(), _quiet(), writing(path) as file:
        torch.onnx.export(
            part, part.examples(), str(file), input_names=list(part.input_names), dynamic_axes=sides,
            output_names=list(part.output_names), opset_version=OPSET, **options,
        )  # fmt: skip
    return Path(path)


@contextlib.contextmanager
def _quiet():
    """Suppress warnings of the exporter about checks that are true for every size, and about its deprecation."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=torch.jit.TracerWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        yield
