"""Engines that run the part of a network for one image: torch.compile, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from loftr_ros.errors import ConfigError, MissingDependencyError
from loftr_ros.matchers.onnx_files import write_onnx

logger = logging.getLogger(__name__)

Engine = Callable[..., tuple[Tensor, ...]]
"""Maps the input tensors of a part (networks/parts.py) to its output tensors."""


def create_engine(engine: str, part: nn.Module, device: torch.device, dtype: torch.dtype) -> Engine:
    """Return a function that runs `part` with the engine `matcher.engine`.

    Raises:
        ConfigError: the engine does not compute on this device or in this precision.
        MissingDependencyError: its package is not installed.
    """
    if engine in CPU_FP32_ONLY and (device.type != 'cpu' or dtype is not torch.float32):
        raise ConfigError(
            f'matcher.engine {engine} computes on the CPU in fp32 here; set matcher.device: cpu and matcher.precision: '
            'fp32, or matcher.engine: compile'
        )
    logger.info('preparing matcher.engine %s', engine)
    return ENGINES[engine](part)


def _compile(part: nn.Module) -> Engine:
    """Compile with torch: about ten seconds for each of the first image sizes, then one version for all sizes."""
    return torch.compile(part)


def _onnxruntime(part: nn.Module) -> Engine:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError('matcher.engine onnxruntime needs: pip install onnx onnxruntime') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait block cores that other programs of the robot need (see runtime.py).
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(part, Path(folder) / 'part.onnx')
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        arrays = (tensor.numpy() for tensor in tensors)
        return tuple(map(torch.from_numpy, session.run(None, dict(zip(part.input_names, arrays, strict=True)))))

    return run


def _openvino(part: nn.Module) -> Engine:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError('matcher.engine openvino needs: pip install onnx openvino') from error
    with tempfile.TemporaryDirectory() as folder:
        model = openvino.Core().read_model(str(write_onnx(part, Path(folder) / 'part.onnx')))
        # By default it may choose bf16, but precision.py selects the number format.
        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
        compiled = openvino.Core().compile_model(model, 'CPU', settings)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = compiled([tensor.numpy() for tensor in tensors])
        return tuple(torch.tensor(outputs[name]) for name in part.output_names)  # a copy: OpenVINO reuses its memory

    return run


ENGINES = {'compile': _compile, 'onnxruntime': _onnxruntime, 'openvino': _openvino}
"""Engines other than torch: functions that make an Engine from a part."""

CPU_FP32_ONLY = ('onnxruntime', 'openvino')
