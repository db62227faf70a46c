"""insightface's parameter names and ours.

| | insightface | here |
|---|---|---|
| statistics of a batch normalisation | `…_moving_mean`, `…_moving_var` | `…_running_mean`, `…_running_var` |
| slopes of a PReLU, `…relu…_gamma` | (C,) | (C, 1, 1, 1) |
| `fc1_gamma` | any values, which its graph ignores | 1 |

All other names and shapes are the same for the networks of recognition/arcface_mxnet/symbol/fresnet.py with
net_unit=3, net_act='prelu', net_se=0, net_input=1 and net_output='E'.
"""

from __future__ import annotations

import re
from typing import Dict, Mapping, Tuple

import mxnet as mx

from latse.errors import LatseError
from latse.symbols import encoder, networks

Parameters = Dict[str, mx.nd.NDArray]

SLOPES = re.compile(r"(^|_)relu\d+_gamma$")

# Parameters of the class centres and of the decoder, which may lie in one file with an encoder's.
OTHER_PARTS = ("fc7_", "decoder_")


def from_insightface(
    arg_params: Mapping[str, mx.nd.NDArray], aux_params: Mapping[str, mx.nd.NDArray]
) -> Tuple[Parameters, Parameters]:
    """Return the parameters under our names and in our shapes; ours come back as they are.

    What else the file holds (`fc7_weight`) is kept. `check_encoder` tells whether the result fits an encoder.
    """
    args = {
        name: array.reshape((-1, 1, 1, 1)) if SLOPES.search(name) else array
        for name, array in arg_params.items()
    }
    if "fc1_gamma" in args:
        args["fc1_gamma"] = mx.nd.ones_like(args["fc1_gamma"])
    return args, {_renamed(name, "moving", "running"): array for name, array in aux_params.items()}


def insightface_name(name: str) -> str:
    """Return what insightface calls a parameter of ours: statistics `moving` instead of `running`."""
    return _renamed(name, "running", "moving")


def check_encoder(
    name: str, arg_params: Mapping[str, mx.nd.NDArray], aux_params: Mapping[str, mx.nd.NDArray]
) -> None:
    """Check that parameters under our names are those of the encoder `name`, one of `encoder.ENCODERS`.

    Parameters of the class centres and of the decoder (`OTHER_PARTS`) may be there as well.

    Raises
    ------
    LatseError
        If a parameter is missing, superfluous or wrongly shaped; the sentence names the first one, in the
        order of the layers.
    """
    for given, shapes in zip((arg_params, aux_params), encoder_shapes(name)):
        for parameter, shape in shapes.items():
            if parameter not in given:
                raise LatseError(f"the parameter {parameter} of {name} is missing")
            if given[parameter].shape != shape:
                raise LatseError(f"{name} needs {parameter} of shape {shape}, not {given[parameter].shape}")
        for parameter in given:
            if parameter not in shapes and not parameter.startswith(OTHER_PARTS):
                raise LatseError(f"{name} has no parameter {parameter}")


def encoder_shapes(name: str) -> Tuple[Dict[str, tuple], Dict[str, tuple]]:
    """Return the shapes of an encoder's arguments (but `data`) and of its auxiliary states, by name."""
    symbol = networks.trace(encoder.create(name))
    args, _, aux = symbol.infer_shape(data=(1, *networks.IMAGE_SHAPE))
    by_name = dict(zip(symbol.list_arguments(), args))
    del by_name["data"]
    return by_name, dict(zip(symbol.list_auxiliary_states(), aux))


def _renamed(name: str, before: str, after: str) -> str:
    return re.sub(f"_{before}_(mean|var)$", rf"_{after}_\1", name)
