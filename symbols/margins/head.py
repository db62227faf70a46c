"""The classifier over all people as one operator: one array of N×K numbers, no copy of the class centres.

Written as ordinary operators, the same needs a normalised copy of the class centres, the gradient of that
copy, and several arrays of N×K. Here the lengths divide the logits, the gradient is made in their place, and
working arrays hold some rows at a time, which stay in the cache. `latse bench head` measures it.
"""

from __future__ import annotations

import atexit

import mxnet as mx

from latse.ending import let_work_end
from latse.errors import LatseError
from latse.symbols.margins.geometry import NEVER, TINY

OPERATOR = "latse_log_sum_exp_of_others"
ROWS = 2048  # class centres at a time
SAMPLES = 8  # samples at a time

atexit.register(let_work_end)  # MXNet's handler drops what an operator in Python waits for


def other_classes(F, embedding, centres, label):
    """Return log Σ exp(e·ŵ_j) over all classes but the label, (N, 1), and the labels' class centres, (N, D).

    Parameters
    ----------
    F : module
        `mx.nd` or `mx.sym`.
    embedding : array (N, D) fp32
        Unit vectors times the scale s.
    centres : array (K, D) fp32
        Class centres of any length; ŵ is of unit length.
    label : array (N,)
        Whole numbers in 0..K-1.
    """
    rest, own, _ = F.Custom(embedding, centres, label, op_type=OPERATOR)
    return rest, own


class LogSumExpOfOthers(mx.operator.CustomOp):
    """Forward and backward in `mx.nd`, thus on any device.

    Backward comes once after each forward, as it writes over what forward has kept.
    """

    def forward(self, is_train, req, in_data, out_data, aux):
        """Compute the outputs; the third is the logarithm of each class's share, the target apart."""
        embedding, centres, label = in_data
        rest, own, log_share = out_data
        self.inverse = _inverse_lengths(centres)
        mx.nd.dot(embedding, centres, transpose_b=True, out=log_share)
        mx.nd.broadcast_mul(log_share, self.inverse.T, out=log_share)
        rows = mx.nd.arange(len(label), ctx=label.context, dtype="int64")
        log_share[rows, label.astype("int64")] = NEVER
        another = (label + 1) * (label + 1 < len(centres))
        logit = mx.nd.pick(log_share, another)
        mx.nd.log_softmax(log_share, out=log_share)
        self.assign(rest, req[0], mx.nd.expand_dims(logit - mx.nd.pick(log_share, another), 1))
        self.assign(own, req[1], mx.nd.take(centres, label))

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        """Compute the gradients; the third output becomes each share over the length of its class centre."""
        embedding, centres, label = in_data
        rest, _, weights = out_data
        inverse, self.inverse = self.inverse, None
        if inverse is None:
            raise LatseError("the gradient of a margin can be taken once after each forward pass")
        slopes = [_target(array, request) for array, request in zip(in_grad, req)]
        mean_logit = _shares(weights, rest, out_grad[0])
        mx.nd.broadcast_mul(weights, inverse.T, out=weights)
        mx.nd.dot(weights, centres, out=slopes[0])
        mx.nd.broadcast_mul(slopes[0], out_grad[0], out=slopes[0])
        # What is along a class centre is taken off first, as its length does not matter; then the product
        # is added in the same array. The gradient from above is cheaper to put on the embedding.
        mx.nd.broadcast_mul(centres, -mean_logit * inverse * inverse, out=slopes[1])
        embedding = mx.nd.broadcast_mul(embedding, out_grad[0])
        mx.nd.linalg.gemm(weights, embedding, slopes[1], transpose_a=True, out=slopes[1])
        _add_rows(slopes[1], label, out_grad[1])
        slopes[2][:] = 0
        for array, request, slope in zip(in_grad, req, slopes):
            if slope is not array:
                self.assign(array, request, slope)


@mx.operator.register(OPERATOR)
class LogSumExpOfOthersProp(mx.operator.CustomOpProp):
    """Names, shapes and dependencies of the operator."""

    def __init__(self) -> None:
        super().__init__(need_top_grad=True)

    def list_arguments(self):
        """Return the names of the inputs."""
        return ["embedding", "centres", "label"]

    def list_outputs(self):
        """Return the names of the outputs."""
        return ["rest", "own", "log_share"]

    def infer_shape(self, in_shape):
        """Return the shapes of inputs, outputs and auxiliary states."""
        (samples, size), (classes, _) = in_shape[:2]
        inputs = [[samples, size], [classes, size], [samples]]
        return inputs, [[samples, 1], [samples, size], [samples, classes]], []

    def declare_backward_dependency(self, out_grad, in_data, out_data):
        """Return what `backward` reads: not the gradient of the third output, which nobody uses."""
        return [*out_grad[:2], *in_data, out_data[0], out_data[2]]

    def create_operator(self, ctx, shapes, dtypes):
        """Return the operator."""
        return LogSumExpOfOthers()


def _target(array, request):
    """Return where a gradient is to be written: the array itself, or another if it is to be added to it."""
    return array if request in ("write", "inplace") else mx.nd.empty(array.shape, array.context)


def _inverse_lengths(centres):
    """Return one over the length of each class centre, (K, 1)."""
    scratch, ones, squares = _scratch(centres, ROWS), mx.nd.ones((1, centres.shape[1]), centres.context), []
    for part in _parts(centres, ROWS):
        # `quadratic` is what squares on all threads, a product what sums rows soonest.
        square = mx.nd.contrib.quadratic(part, a=1, out=scratch[: len(part)])
        squares.append(mx.nd.FullyConnected(square, ones, no_bias=True, num_hidden=1))
    return mx.nd.rsqrt(mx.nd.concat(*squares, dim=0) + TINY)


def _shares(log_shares, rest, weights):
    """Turn the logarithms (N, K) into shares; return for each class Σ weight · share · logit, (K, 1)."""
    scratch, total = _scratch(log_shares, SAMPLES), mx.nd.zeros((1, log_shares.shape[1]), log_shares.context)
    for part, level, weight in zip(*(_parts(array, SAMPLES) for array in (log_shares, rest, weights))):
        logit = mx.nd.broadcast_add(part, level, out=scratch[: len(part)])
        mx.nd.softmax(part, out=part)
        mx.nd.elemwise_mul(logit, part, out=logit)
        mx.nd.linalg.gemm(weight, logit, total, transpose_a=True, out=total)
    return total.T


def _scratch(array, rows):
    """Return an empty array of at most so many rows like those of `array`."""
    return mx.nd.empty((min(rows, len(array)), array.shape[1]), array.context)


def _parts(array, rows):
    """Return views of so many rows each."""
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def _add_rows(array, label, rows):
    """Add the rows (N, D) to those of `array` that the labels (N,) name, one or several to one."""
    same = mx.nd.broadcast_equal(mx.nd.expand_dims(label, 1), mx.nd.expand_dims(label, 0))
    array[label.astype("int64")] = mx.nd.take(array, label) + mx.nd.dot(same, rows)
