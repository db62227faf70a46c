"""insightface's parameter names and ours.

| | insightface | here |
|---|---|---|
| statistics of a batch normalisation | `…_moving_mean`, `…_moving_var` | `…_running_mean`, `…_running_var` |
| slopes of a PReLU, `…relu…_gamma` | (C,) | (C, 1, 1, 1) |
| `fc1_gamma` | any values, which its graph ignores | 1 |
| weight of the last dense layer | `pre_fc1_weight`; `fc1_weight` in older ones | `pre_fc1_weight` |

All other names and shapes are the same for the networks of recognition/arcface_mxnet/symbol/fresnet.py with
net_unit=3, net_act='prelu', net_se=0, net_input=1 and net_output='E', and for those of fmobilefacenet.py
with net_act='prelu' and net_output='GDC'.
"""

from __future__ import annotations

import re
from typing import Mapping

import mxnet as mx

# Parameters of the class centres and of the decoder, which may lie in one file with an encoder's.
OTHER_PARTS = ("fc7_", "decoder_")
# Those of the second network of a training. They come last by name, so that the first network's are drawn as
# if it were alone.
TWIN = "twin_"

SLOPES = re.compile(r"(^|_)relu\d*_gamma$")


def from_insightface(
    arg_params: Mapping[str, mx.nd.NDArray], aux_params: Mapping[str, mx.nd.NDArray]
) -> tuple[dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]:
    """Return the parameters under our names and in our shapes; ours come back as they are.

    What else the file holds (`fc7_weight`) is kept.
    """
    args = {
        name: array.reshape((-1, 1, 1, 1)) if SLOPES.search(name) else array
        for name, array in arg_params.items()
    }
    if "pre_fc1_bias" in args and "fc1_weight" in args:
        args["pre_fc1_weight"] = args.pop("fc1_weight")
    if "fc1_gamma" in args:
        args["fc1_gamma"] = mx.nd.ones_like(args["fc1_gamma"])
    return args, {_renamed(name, "moving", "running"): array for name, array in aux_params.items()}


def insightface_name(name: str) -> str:
    """Return what insightface calls a parameter of ours: statistics `moving` instead of `running`."""
    return _renamed(name, "running", "moving")


def _renamed(name: str, before: str, after: str) -> str:
    return re.sub(f"_{before}_(mean|var)$", rf"_{after}_\1", name)
