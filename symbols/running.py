"""Running parameters: what a loss remembers from batch to batch, moved by its gradient as it is.

A graph changes a parameter only through its gradient. So a loss that remembers something adds `moved` to its
value: a term of value 0 whose gradient is the parameter's step. The optimiser subtracts the mean of this
gradient over the batch, without rate, momentum or decay. A parameter is a running one by its name.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
from mxnet.gluon import nn

ENDING = "_running"


def running_parameter(block: nn.HybridBlock, name: str, **settings: Any) -> mx.gluon.Parameter:
    """Return the running parameter `<prefix of the block><name>_running`; settings as of `params.get`."""
    with block.name_scope():
        return block.params.get(name + ENDING, **settings)


def is_running(name: str) -> bool:
    """Tell whether a parameter of this name is a running one."""
    return name.endswith(ENDING)


def moved(F, running, step):
    """Return a term of the loss of each sample, 0 in value, by which `running` becomes itself less `step`.

    Parameters
    ----------
    F : module
        `mx.nd` or `mx.sym`.
    running : array
        A running parameter, or rows of it, one for each sample.
    step : array
        Of the same shape; of several samples the mean counts.
    """
    pull = F.BlockGrad(step) * running
    return pull - F.BlockGrad(pull)
