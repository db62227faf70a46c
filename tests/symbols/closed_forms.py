"""Every loss of `latse.symbols.margins` and its gradients, derived by hand, in float64.

FORMULAS: name -> function of a batch and of the loss' parameters, which returns an `Expected`.
CASES: (name, parameters) to test; every name is there with its defaults, and with others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import mxnet as mx
import numpy as np

from latse.symbols import margins

# Two vectors of float64 that should be parallel are so to 1e-16; none of fp32 that are not come this near.
PARALLEL = 1e-12


@dataclass
class Batch:
    """What a loss gets: an embedding, labels, its own arrays by name, how many iterations are done."""

    embedding: np.ndarray
    label: np.ndarray
    classes: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    iteration: int = 0


class Expected(NamedTuple):
    """Losses (N,), gradients of their sum by name (`data`: embedding), new values of what is running."""

    loss: np.ndarray
    gradients: dict[str, np.ndarray]
    running: dict[str, np.ndarray]


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths, lengths


def along_the_sphere(gradient, x):
    return gradient - (gradient * x).sum(axis=1, keepdims=True) * x


def angle_and_slope(x, y):
    """The angle between unit vectors, (N, 1), and its gradient with respect to x, 0 where it has none."""
    cosine = (x * y).sum(axis=1, keepdims=True)
    tangent = y - cosine * x
    sine = np.linalg.norm(tangent, axis=1, keepdims=True)
    slope = -np.divide(tangent, sine, out=np.zeros_like(tangent), where=sine > PARALLEL)
    return np.arctan2(sine, cosine), slope


def cross_entropy(target, others, label):
    """-log of the target's share, (N, 1), and its derivatives with respect to the logits.

    target is (N, 1), others (N, K), of which the label's column is not read. 1 - p of the target is summed
    over the others, so that it is right where p is 1 to the last bit.
    """
    excess = others - target
    excess[np.arange(len(label)), label] = -np.inf
    top = excess.max(axis=1, keepdims=True)
    loss = np.logaddexp(0, top + np.log(np.exp(excess - top).sum(axis=1, keepdims=True)))
    shares = np.exp(excess - loss)
    return loss, -shares.sum(axis=1, keepdims=True), shares


def on_the_sphere(batch, h, g):
    """The losses, the gradients, and the derivatives (N, 1) with respect to the target's logit.

    h : function of θ (N, 1) to the target's logit and its derivative with respect to θ.
    g : function of cos θ (N, K) and the target's logit to the other logits and their derivatives.
    """
    x, length_x = unit(batch.embedding.astype(np.float64))
    w, length_w = unit(batch.arrays["fc7_weight"].astype(np.float64))
    own = w[batch.label]
    theta, theta_by_x = angle_and_slope(x, own)
    _, theta_by_w = angle_and_slope(own, x)
    target, target_slope = h(theta)
    others, others_slope = g(x @ w.T, target)
    loss, by_target, by_others = cross_entropy(target, others, batch.label)
    by_theta, by_cosine = by_target * target_slope, by_others * others_slope
    grad_x = by_theta * theta_by_x + by_cosine @ w
    grad_w = by_cosine.T @ x
    np.add.at(grad_w, batch.label, by_theta * theta_by_w)
    gradients = {
        "data": along_the_sphere(grad_x, x) / length_x,
        "fc7_weight": along_the_sphere(grad_w, w) / length_w,
    }
    return loss[:, 0], gradients, by_target


def scaled(s):
    return lambda cosine, target: (s * cosine, s)


def margin(psi):
    """A formula with h(θ) = s·psi(θ), g(θ) = s·cos θ; psi returns value and derivative."""

    def formula(batch, s=64.0, **parameters):
        def h(theta):
            value, slope = psi(theta, **parameters)
            return s * value, s * slope

        return Expected(*on_the_sphere(batch, h, scaled(s))[:2], {})

    return formula


def combined(theta, m1=1.0, m2=0.3, m3=0.2):
    return np.cos(m1 * theta + m2) - m3, -m1 * np.sin(m1 * theta + m2)


def easy(theta, m2=0.5):
    before, beyond = combined(theta, 1, m2, 0), combined(theta, 1, 0, 0)
    return [np.where(theta < np.pi / 2, *pair) for pair in zip(before, beyond)]


def shifted(theta, m2=0.5):
    before, beyond = combined(theta, 1, m2, 0), combined(theta, 1, 0, m2 * np.sin(m2))
    return [np.where(theta < np.pi - m2, *pair) for pair in zip(before, beyond)]


def sphere(theta, m1=1.35):
    # ψ falls by 2 over each π/m1: what is left of θ after the whole ones is on a cosine from 1 to -1.
    whole, rest = np.divmod(m1 * theta, np.pi)
    return np.cos(rest) - 2 * whole, -m1 * np.sin(rest)


def sphereface_annealed(batch, s=64.0, m1=4.0, lambda_min=5.0, lambda_base=1000.0, lambda_gamma=0.12):
    weight = max(lambda_min, lambda_base * (1 + lambda_gamma * batch.iteration) ** -1.0)

    def h(theta):
        psi, slope = sphere(theta, m1)
        return (
            s * (weight * np.cos(theta) + psi) / (1 + weight),
            s * (-weight * np.sin(theta) + slope) / (1 + weight),
        )

    return Expected(*on_the_sphere(batch, h, scaled(s))[:2], {})


def sv_am_softmax(batch, s=64.0, m3=0.35, t=1.2):
    """Which classes are support vectors, above the target, is a constant to the gradient."""

    def h(theta):
        return s * (np.cos(theta) - m3), -s * np.sin(theta)

    def g(cosine, target):
        support = s * cosine > target
        return np.where(support, s * (t * cosine + t - 1), s * cosine), np.where(support, s * t, s)

    return Expected(*on_the_sphere(batch, h, g)[:2], {})


def subcentre_arcface(batch, centres=3, **parameters):
    """ArcFace of each sample over the centre of each person that is nearest to it."""
    every = batch.arrays["fc7_weight"].astype(np.float64)
    assert every.shape[1] == centres
    gradients, losses = {"data": np.zeros(batch.embedding.shape), "fc7_weight": np.zeros_like(every)}, []
    for i, embedding in enumerate(batch.embedding.astype(np.float64)):
        cosine = (every / np.linalg.norm(every, axis=2, keepdims=True)) @ embedding
        nearest = np.arange(batch.classes), cosine.argmax(axis=1)
        one = Batch(embedding[None], batch.label[i : i + 1], batch.classes, {"fc7_weight": every[nearest]})
        loss, gradient, _ = FORMULAS["arcface"](one, **parameters)
        losses.append(loss[0])
        gradients["data"][i] = gradient["data"][0]
        gradients["fc7_weight"][nearest] += gradient["fc7_weight"]
    return Expected(np.array(losses), gradients, {})


def adacos_fixed(batch):
    return FORMULAS["normalised_softmax"](batch, s=math.sqrt(2) * math.log(batch.classes - 1))


def adacos(batch):
    """Zhang et al. 2019, equations 16 to 18 with the scale of the iteration before in B_avg."""
    x, w = (unit(v.astype(np.float64))[0] for v in (batch.embedding, batch.arrays["fc7_weight"]))
    before = float(batch.arrays["fc7_scale_running"][0])
    summed = [
        sum(math.exp(before * (x_i @ w[k])) for k in range(batch.classes) if k != y)
        for x_i, y in zip(x, batch.label)
    ]
    theta = sorted(angle_and_slope(x, w[batch.label])[0][:, 0])
    median = theta[(len(theta) - 1) // 2]
    s = math.log(sum(summed) / len(summed)) / math.cos(min(math.pi / 4, median))
    loss, gradients, _ = FORMULAS["normalised_softmax"](batch, s=s)
    return Expected(loss, gradients, {"fc7_scale_running": np.array([s])})


def adaptiveface(batch, s=64.0, m3=0.4, weight=5.0):
    """The parameter m3 is only where the margins start: it is not in the loss."""
    all_margins = batch.arrays["fc7_margin"].astype(np.float64)[:, 0]
    own = np.maximum(all_margins[batch.label], 0)[:, None]
    loss, gradients, by_target = on_the_sphere(
        batch, lambda theta: (s * (np.cos(theta) - own), -s * np.sin(theta)), scaled(s)
    )
    by_margin = np.full(batch.classes, -weight * len(batch.label) / batch.classes)
    for y, derivative in zip(batch.label, by_target[:, 0]):
        by_margin[y] += -s * derivative * (all_margins[y] > 0)
    return Expected(
        loss - weight * all_margins.sum() / batch.classes, {**gradients, "fc7_margin": by_margin[:, None]}, {}
    )


def softmax_bias(batch):
    x, w = batch.embedding.astype(np.float64), batch.arrays["fc7_weight"].astype(np.float64)
    logits = x @ w.T + batch.arrays.get("fc7_bias", np.zeros(batch.classes)).astype(np.float64)
    rows = np.arange(len(batch.label))
    loss, by_target, by_logit = cross_entropy(logits[rows, batch.label][:, None], logits, batch.label)
    by_logit[rows, batch.label] = by_target[:, 0]
    gradients = {"data": by_logit @ w, "fc7_weight": by_logit.T @ x, "fc7_bias": by_logit.sum(axis=0)}
    return Expected(loss[:, 0], gradients, {})


def softmax(batch):
    loss, gradients, running = softmax_bias(batch)
    del gradients["fc7_bias"]
    return Expected(loss, gradients, running)


def centre_loss(batch, weight=0.003, alpha=0.5):
    """Wen et al. 2016: equation 5, its gradient, and equation 4 for what the centres move by."""
    loss, gradients, _ = softmax_bias(batch)
    x, centres = batch.embedding.astype(np.float64), batch.arrays["fc7_centre_running"].astype(np.float64)
    away = x - centres[batch.label]
    moved = centres.copy()
    for j in range(batch.classes):
        mine = [i for i, y in enumerate(batch.label) if y == j]
        moved[j] -= alpha * sum((centres[j] - x[i] for i in mine), np.zeros(x.shape[1])) / (1 + len(mine))
    loss = loss + weight / 2 * (away**2).sum(axis=1)
    gradients["data"] += weight * away
    return Expected(loss, gradients, {"fc7_centre_running": moved})


def triplet(batch, m=0.2):
    """Schroff et al. 2015, equation 3; the mining is written from its definition."""
    x, lengths = unit(batch.embedding.astype(np.float64))
    distance = np.array([[((a - b) ** 2).sum() for b in x] for a in x])
    loss, gradient = np.zeros(len(x)), np.zeros_like(x)
    for a, label in enumerate(batch.label):
        positives = [i for i in range(len(x)) if i != a and batch.label[i] == label]
        negatives = [i for i in range(len(x)) if batch.label[i] != label]
        for p in positives if negatives else []:
            n = mined(distance[a], p, negatives)
            hinge = distance[a, p] - distance[a, n] + m
            if hinge > 0:
                loss[a] += hinge / len(positives)
                gradient[a] += 2 * (x[n] - x[p]) / len(positives)
                gradient[p] += 2 * (x[p] - x[a]) / len(positives)
                gradient[n] += 2 * (x[a] - x[n]) / len(positives)
    return Expected(loss, {"data": along_the_sphere(gradient, x) / lengths}, {})


def mined(distance, p, negatives):
    """The nearest of the negatives that are farther than p; without one, the farthest negative."""
    semi_hard = [n for n in negatives if distance[n] > distance[p]]
    if semi_hard:
        return min(semi_hard, key=lambda n: distance[n])
    return max(negatives, key=lambda n: distance[n])


# h(θ)/s and its derivative, of the margins of which that is all.
PSI = {
    "normalised_softmax": lambda theta: (np.cos(theta), -np.sin(theta)),
    "sphereface": sphere,
    "sphereface_literal": lambda theta, m1=1.35: combined(theta, m1, 0, 0),
    "cosface": lambda theta, m3=0.35: combined(theta, 1, 0, m3),
    "arcface": lambda theta, m2=0.5: combined(theta, 1, m2, 0),
    "arcface_easy_margin": easy,
    "arcface_shifted": shifted,
    "combined": combined,
    "linearface": lambda theta, a=0.88, b=0.88: (b - a * theta, np.full_like(theta, -a)),
}
FORMULAS = {
    **{name: margin(psi) for name, psi in PSI.items()},
    "softmax": softmax,
    "softmax_bias": softmax_bias,
    "sphereface_annealed": sphereface_annealed,
    "subcentre_arcface": subcentre_arcface,
    "sv_am_softmax": sv_am_softmax,
    "adacos_fixed": adacos_fixed,
    "adacos": adacos,
    "adaptiveface": adaptiveface,
    "centre_loss": centre_loss,
    "triplet": triplet,
}
OTHER_PARAMETERS = {
    "cosface": [{"m3": 0.2}],
    "arcface": [{"m2": 0.3}],
    "subcentre_arcface": [{"m2": 0.3}],
    "arcface_easy_margin": [{"m2": 0.3}],
    "arcface_shifted": [{"m2": 0.3}],
    "sphereface": [{"m1": 4.0}, {"m1": 1.0}],
    "sphereface_annealed": [{"m1": 3.0, "lambda_min": 0.0, "lambda_base": 10.0, "lambda_gamma": 1.0}],
    "sphereface_literal": [{"m1": 4.0}],
    "combined": [{"m1": 1.2, "m2": 0.4, "m3": 0.1}],
    "linearface": [{"a": 1.0, "b": 1.0}, {"b": 1.0}],
    "sv_am_softmax": [{"m3": 0.1, "t": 2.0}, {"t": 1.0}],
    "adaptiveface": [{"weight": 0.0}],
    "centre_loss": [{"weight": 1.0, "alpha": 0.1}],
    "triplet": [{"m": 1.0}],
}
CASES = [(name, parameters) for name in FORMULAS for parameters in [{}, *OTHER_PARAMETERS.get(name, [])]]
UNNORMALISED = ("softmax", "softmax_bias", "centre_loss")


def has_scale(name):
    return "s" in margins.parameters(name)


def at_angles(name, theta, classes=5, seed=0, radius=64.0):
    """A batch whose embeddings are at the angles `theta` (N,) from their class centres, in fp32.

    Where the loss is over products, the largest of |x|·|w| is `radius`; elsewhere lengths are random.
    """
    rng = np.random.default_rng(seed)
    theta = np.asarray(theta, dtype=np.float64)[:, None]
    arrays = random_arrays(name, classes, rng)
    centres = arrays.get("fc7_weight", rng.normal(size=(classes, 512)).astype(np.float32))
    label = rng.integers(0, classes, len(theta))
    if centres.ndim == 3:  # the first of several for each person
        centres = centres[:, 0]
    w = unit(centres.astype(np.float64))[0][label]
    aside = unit(along_the_sphere(rng.normal(size=w.shape), w))[0]
    length = rng.uniform(0.5, 50, theta.shape)
    if name in UNNORMALISED:
        length *= radius / length.max() / np.linalg.norm(centres, axis=1).max()
    embedding = (length * (np.cos(theta) * w + np.sin(theta) * aside)).astype(np.float32)
    return Batch(embedding, label, classes, arrays, int(rng.integers(0, 10000)))


def random_arrays(name, classes, rng):
    """Values, fp32, for the parameters of a loss."""
    parameters = margins.create(name, classes).collect_params()
    centres = parameters["fc7_weight"].shape[:-1] if "fc7_weight" in parameters else (classes,)
    values = {
        "fc7_weight": rng.normal(0, rng.choice([0.01, 0.1, 2]), (*centres, 512)),
        "fc7_bias": rng.normal(size=classes),
        "fc7_margin": rng.uniform(-0.3, 0.8, (classes, 1)),
        "fc7_scale_running": rng.uniform(5, 64, 1),
        "fc7_centre_running": rng.normal(size=(classes, 512)),
    }
    return {key: values[key].astype(np.float32) for key in parameters}


def with_arrays(block, arrays):
    """The block with the values of its parameters that `arrays` has, initialised else."""
    block.initialize(force_reinit=True)
    for key, parameter in block.collect_params().items():
        if key in arrays:
            parameter.set_data(mx.nd.array(arrays[key]))
    return block


def further_inputs(block, batch):
    """The inputs after embedding and label."""
    return [np.full(len(batch.label), getattr(batch, name)) for name in block.inputs]


def evaluate(block, batch):
    """Losses and gradients of their sum by name, as a loss (its parameters set from the batch) has them."""
    with_arrays(block, batch.arrays)
    embedding = mx.nd.array(batch.embedding, dtype=batch.embedding.dtype)
    embedding.attach_grad()
    with mx.autograd.record():
        loss = block(embedding, mx.nd.array(batch.label), *map(mx.nd.array, further_inputs(block, batch)))
    loss.backward()
    parameters = block.collect_params().items()
    return loss.asnumpy(), {
        "data": embedding.grad.asnumpy(),
        **{key: parameter.grad().asnumpy() for key, parameter in parameters},
    }


def evaluate_named(name, parameters, batch):
    return evaluate(margins.create(name, batch.classes, **parameters), batch)


def expected(name, parameters, batch):
    return FORMULAS[name](batch, **parameters)


def error_norm(found, right):
    """Norms of the difference and of what is right."""
    return np.linalg.norm(found.astype(np.float64) - right), np.linalg.norm(right)
