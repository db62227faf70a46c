"""The classifier over all people as one operator: one array of N×K numbers, no copy of the class centres.

Written as ordinary operators, the same needs a normalised copy of the class centres, the gradient of that
copy, and several arrays of N×K. Here the lengths divide the logits, the gradient is made in their place, and
what is element by element over the class centres goes some thousands of them at a time, so that it stays in
the cache. `latse bench head` measures it.
"""

from __future__ import annotations

import mxnet as mx

from latse.errors import LatseError
from latse.symbols.margins.geometry import NEVER, TINY

OPERATOR = "latse_log_sum_exp_of_others"
ROWS = 2048  # class centres at a time


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
        mx.nd.FullyConnected(embedding, centres, no_bias=True, num_hidden=len(centres), out=log_share)
        mx.nd.broadcast_mul(log_share, self.inverse.T, out=log_share)
        log_share[_arange(label), label.astype("int64")] = NEVER
        another = (label + 1) * (label + 1 < len(centres))
        logit = mx.nd.pick(log_share, another)
        mx.nd.log_softmax(log_share, out=log_share)
        self.assign(rest, req[0], mx.nd.expand_dims(logit - mx.nd.pick(log_share, another), 1))
        self.assign(own, req[1], mx.nd.take(centres, label))

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        """Compute the gradients; the third output becomes each share over the length of its class centre."""
        embedding, centres, label = in_data
        weights, inverse, self.inverse = out_data[2], self.inverse, None
        if inverse is None:
            raise LatseError("the gradient of a margin can be taken once after each forward pass")
        mx.nd.softmax(weights, out=weights)
        mx.nd.broadcast_mul(weights, inverse.T, out=weights)
        slopes = [_target(array, request) for array, request in zip(in_grad, req)]
        # The gradient from above is one number a sample, which is cheaper to put on the embedding.
        mx.nd.dot(weights, mx.nd.broadcast_mul(embedding, out_grad[0]), transpose_a=True, out=slopes[1])
        mx.nd.dot(weights, centres, out=slopes[0])
        mx.nd.broadcast_mul(slopes[0], out_grad[0], out=slopes[0])
        _project(slopes[1], centres, inverse)
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
        return in_shape[:2] + [[samples]], [[samples, 1], [samples, size], [samples, classes]], []

    def declare_backward_dependency(self, out_grad, in_data, out_data):
        """Return what `backward` reads: not the gradient of the third output, which nobody uses."""
        return [*out_grad[:2], *in_data, out_data[2]]

    def create_operator(self, ctx, shapes, dtypes):
        """Return the operator."""
        return LogSumExpOfOthers()


def _target(array, request):
    """Return where a gradient is to be written: the array itself, or another if it is to be added to it."""
    return array if request in ("write", "inplace") else mx.nd.empty(array.shape, array.context)


def _inverse_lengths(centres):
    """Return one over the length of each class centre, (K, 1)."""
    scratch = _scratch(centres)
    squares = [_row_sums(mx.nd.square(part, out=scratch[: len(part)])) for (part,) in _parts(centres)]
    return mx.nd.rsqrt(mx.nd.concat(*squares, dim=0) + TINY)


def _project(gradient, centres, inverse):
    """Take from the gradient (K, D) what is along the class centres, whose lengths do not matter."""
    ones, scratch = mx.nd.ones((1, centres.shape[1]), centres.context), _scratch(centres)
    for slope, part, over in _parts(gradient, centres, inverse):
        work = scratch[: len(part)]
        along = _row_sums(mx.nd.elemwise_mul(slope, part, out=work)) * over * over
        # A product of matrices spreads the numbers over the rows in less time than broadcast_mul.
        mx.nd.dot(along, ones, out=work)
        mx.nd.elemwise_mul(work, part, out=work)
        mx.nd.elemwise_sub(slope, work, out=slope)


def _add_rows(array, label, rows):
    """Add the rows (N, D) to those of `array` that the labels (N,) name, one or several to one."""
    same = mx.nd.broadcast_equal(mx.nd.expand_dims(label, 1), mx.nd.expand_dims(label, 0))
    array[label.astype("int64")] = mx.nd.take(array, label) + mx.nd.dot(same, rows)


def _parts(*arrays):
    """Yield views of a few rows each of arrays of K rows."""
    for start in range(0, len(arrays[0]), ROWS):
        yield tuple(array[start : start + ROWS] for array in arrays)


def _scratch(centres):
    return mx.nd.empty((min(ROWS, len(centres)), centres.shape[1]), centres.context)


def _row_sums(array):
    """Return the sums over the rows of (K, D): (K, 1); by a product, which is faster than `sum`."""
    ones = mx.nd.ones((1, array.shape[1]), array.context)
    return mx.nd.FullyConnected(array, ones, no_bias=True, num_hidden=1)


def _arange(label):
    return mx.nd.arange(len(label), ctx=label.context, dtype="int64")
