"""A network in integers of 8 bits for OpenVINO, made by NNCF from one that `exports.write` has left; judges nothing.

Scales come from tiles that the network is shown (static quantisation after training). Layers that cost too much of the
likelihood of these tiles' labels go back to full precision (NNCF's accuracy control). Weights use 7 of the 8 bits: CPUs without
VNNI add two products in 16 bits, which overflow else, and what was compared on one machine would say other things on another.
"""

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from histo_mlflow.models.exports import file_of, open_openvino
from histo_mlflow.models.options import OPENVINO, OPENVINO_INT8

CALIBRATION_TILES = 300
"""Enough for the range of each layer (NNCF's own default); more take longer and change little."""
MOST_LIKELIHOOD_LOST = 0.02
"""Nats a calibration tile that 8 bits may cost on average before layers go back to full precision."""
_RANKING_TILES = 100  # by which it is found out which layers cost most, each of them tried by itself
_WITH_WEIGHTS = {"Convolution", "GroupConvolution", "MatMul"}
_INTEGERS = {"i8", "u8", "i4", "u4"}


@dataclass(frozen=True)
class Layers:
    """How many layers with weights a network has, and how many of them compute with integers."""

    n_all: int
    n_int8: int


def quantize(source: Path, target: Path, tiles: NDArray[np.uint8], labels: NDArray[np.int64]) -> Layers:
    """Write what `exports.write` has left in `source` for OpenVINO to the folder `target` in 8 bits; takes minutes.

    Args:
        source: Holds the network in full precision.
        target: Is empty.
        tiles: ``(n_tiles, height, width, 3)`` to calibrate with.
        labels: ``(n_tiles,)``, which rows of the logits are right.
    """
    openvino, nncf = open_openvino(), _open_nncf()
    network = openvino.Core().read_model(source / file_of(OPENVINO))
    n_all = sum(map(_has_weights, network.get_ops()))
    shown = nncf.Dataset(list(zip(tiles, labels, strict=True)), lambda item: item[0][None])
    has_attention = any(op.get_type_name() in {"Softmax", "ScaledDotProductAttention"} for op in network.get_ops())
    with warnings.catch_warnings(), _bars_on_stderr():
        warnings.simplefilter("ignore")
        quantized = nncf.quantize_with_accuracy_control(
            network,
            shown,
            shown,
            _likelihoods,
            max_drop=MOST_LIKELIHOOD_LOST,
            preset=nncf.QuantizationPreset.MIXED,  # activations such as SiLU are not symmetric
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(tiles),
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.ENABLE
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=_RANKING_TILES, num_ranking_workers=1
            ),
        )
    n_int8 = sum(
        op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in _INTEGERS for op in quantized.get_ops()
    )
    openvino.save_model(quantized, target / file_of(OPENVINO_INT8), compress_to_fp16=False)
    return Layers(n_all, n_int8)


def _likelihoods(compiled: Any, items: Iterable[tuple[NDArray[np.uint8], np.int64]]) -> tuple[float, list[float]]:
    """Return the mean log probability of the labels, and that of each, in nats."""
    found = [
        -float(functional.cross_entropy(torch.from_numpy(np.array(compiled(tile[None])[0])), torch.tensor([label])))
        for tile, label in items
    ]
    return float(np.mean(found)), found


def _has_weights(op: Any) -> bool:
    return op.get_type_name() in _WITH_WEIGHTS and any(
        port.get_node().get_type_name() in {"Constant", "Reshape"} for port in op.input_values()[1:]
    )


def _open_nncf() -> Any:
    # What NNCF imports of torch misses CUDA where it is half installed; nothing here needs it.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nncf: Any = importlib.import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf


def _bars_on_stderr() -> contextlib.AbstractContextManager[Any]:
    """NNCF draws its progress bars to standard output, where there are words alone here; to a file it draws none."""
    return contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO())
