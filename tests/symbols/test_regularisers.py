"""Regularisers against loops over the class centres."""

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from closed_forms import (
    OTHER_PARAMETERS,
    along_the_sphere,
    at_angles,
    error_norm,
    evaluate,
    evaluate_named,
    further_inputs,
    unit,
)

from latse.errors import LatseError
from latse.symbols import margins

WEIGHTS = [
    {"hyperspherical_energy": 1.5},
    {"exclusive": 2.0},
    {"hyperspherical_energy": 0.5, "exclusive": 3.0},
]
ONES_WITH_CENTRES = [name for name in margins.MARGINS if name not in ("triplet", "subcentre_arcface")]


def energy(w, label):
    """Liu et al. 2018, with s = 2: the mean over the others of 1/distance², and its gradient."""
    values, gradient = np.zeros(len(label)), np.zeros_like(w)
    for i, y in enumerate(label):
        for j in range(len(w)):
            if j != y:
                square = ((w[y] - w[j]) ** 2).sum()
                values[i] += 1 / square / (len(w) - 1)
                # d(1/|u|²) = -2u/|u|⁴
                gradient[y] += -2 * (w[y] - w[j]) / square**2 / (len(w) - 1)
                gradient[j] += 2 * (w[y] - w[j]) / square**2 / (len(w) - 1)
    return values, gradient


def exclusive(w, label):
    """Zhao et al. 2019: the largest cosine to another class centre, and its gradient."""
    values, gradient = np.zeros(len(label)), np.zeros_like(w)
    for i, y in enumerate(label):
        nearest = max((j for j in range(len(w)) if j != y), key=lambda j: w[y] @ w[j])
        values[i] = w[y] @ w[nearest]
        gradient[y] += w[nearest]
        gradient[nearest] += w[y]
    return values, gradient


LOOPS = {"hyperspherical_energy": energy, "exclusive": exclusive}


def terms(weights, centres, label):
    """The weighted sum of the regularisers of each sample, and the gradient of all to the centres."""
    w, lengths = unit(centres.astype(np.float64))
    parts = [(factor, *LOOPS[name](w, label)) for name, factor in weights.items()]
    gradient = sum(factor * part for factor, _, part in parts)
    return sum(factor * value for factor, value, _ in parts), along_the_sphere(gradient, w) / lengths


def regularised(name, weights, classes, **parameters):
    return margins.Regularised(margins.create(name, classes, **parameters), weights)


def test_every_regulariser_is_tested():
    assert set(LOOPS) == set(margins.REGULARISERS) == {name for weights in WEIGHTS for name in weights}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_loops_gradient_is_that_of_finite_differences(weights):
    centres = np.random.default_rng(0).normal(size=(4, 5))
    label = np.array([0, 2, 2])
    _, gradient = terms(weights, centres, label)
    for index in np.ndindex(*centres.shape):
        sides = []
        for side in (1e-6, -1e-6):
            moved = centres.copy()
            moved[index] += side
            sides.append(terms(weights, moved, label)[0].sum())
        assert abs((sides[0] - sides[1]) / 2e-6 - gradient[index]) < 1e-7 * max(1, np.abs(gradient).max())


@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ONES_WITH_CENTRES)
def test_loss_and_gradients_are_the_sums(name, weights, classes):
    classes = max(classes, 3) if "adacos" in name else classes
    parameters = OTHER_PARAMETERS.get(name, [{}])[0]
    batch = at_angles(name, [0.4, 0.9, 1.3, 1.4], classes, seed=classes)
    plain, plain_gradients = evaluate_named(name, parameters, batch)
    loss, gradients = evaluate(regularised(name, weights, classes, **parameters), batch)
    values, gradient = terms(weights, batch.arrays["fc7_weight"], batch.label)
    np.testing.assert_allclose(loss, plain + values, rtol=1e-5, atol=1e-6)
    right = {**plain_gradients, "fc7_weight": plain_gradients["fc7_weight"] + gradient}
    assert set(gradients) == set(right)
    for key, expected in right.items():
        difference, length = error_norm(gradients[key], expected)
        assert difference <= 1e-4 * length, key


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("spread", [0.1, 0.02])
def test_near_class_centres(weights, spread):
    batch = at_angles("normalised_softmax", [0.5, 1.0], 4)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=512) + spread * rng.normal(size=(4, 512))
    batch.arrays["fc7_weight"] = centres.astype(np.float32)
    plain, _ = evaluate_named("normalised_softmax", {}, batch)
    loss, _ = evaluate(regularised("normalised_softmax", weights, 4), batch)
    # A squared distance of fp32 is good to 5e-7, that of these centres is about 2·spread².
    values = terms(weights, batch.arrays["fc7_weight"], batch.label)[0]
    np.testing.assert_allclose(loss - plain, values, rtol=5e-7 / spread**2 + 1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equal_class_centres_stay_finite(weights):
    batch = at_angles("arcface", [0.5, 1.0], 4)
    batch.arrays["fc7_weight"][:] = batch.arrays["fc7_weight"][0]
    loss, gradients = evaluate(regularised("arcface", weights, 4), batch)
    assert np.isfinite(loss).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("weights", [{}, {"hyperspherical_energy": 0.0}, dict.fromkeys(LOOPS, 0.0)])
@pytest.mark.parametrize("name", ["linearface", "centre_loss", "sphereface_annealed"])
def test_without_weight_the_loss_is_as_it_was(name, weights):
    batch = at_angles(name, [0.4, 0.9, 1.3])
    plain, plain_gradients = evaluate_named(name, {}, batch)
    loss, gradients = evaluate(regularised(name, weights, 5), batch)
    np.testing.assert_array_equal(loss, plain)
    for key, gradient in plain_gradients.items():
        np.testing.assert_allclose(gradients[key], gradient, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ONES_WITH_CENTRES)
def test_the_class_centres_are_the_very_same(name):
    plain = margins.create(name, 5)
    both = margins.Regularised(plain, WEIGHTS[2])
    assert both.weight is plain.weight
    assert set(both.collect_params()) == set(plain.collect_params())
    assert both.inputs == plain.inputs


def test_a_label_that_is_no_class_gives_nan_and_leaves_the_others():
    batch = at_angles("cosface", [0.4, 0.9, 1.3])
    block = regularised("cosface", WEIGHTS[2], 5)
    right, _ = evaluate(block, batch)
    for label in (-1, 5, 1.5, np.nan):
        wrong = batch.label.astype(np.float32)
        wrong[1] = label
        loss, _ = evaluate(block, replace(batch, label=wrong))
        assert np.isnan(loss[1])
        np.testing.assert_allclose(loss[[0, 2]], right[[0, 2]], rtol=1e-6)


@pytest.mark.parametrize("name", ["linearface", "sphereface_annealed"])
def test_traced_and_bound_it_is_the_same(name):
    batch = at_angles(name, [0.1, 0.9, 1.5, 3.0], seed=6)
    block = regularised(name, WEIGHTS[2], batch.classes)
    loss, gradients = evaluate(block, batch)
    symbol = block(mx.sym.var("data"), mx.sym.var("label"), *map(mx.sym.var, block.inputs))
    inputs = {
        "data": batch.embedding,
        "label": batch.label,
        **dict(zip(block.inputs, further_inputs(block, batch))),
    }
    executor = symbol.simple_bind(mx.cpu(), **{key: value.shape for key, value in inputs.items()})
    executor.copy_params_from({key: mx.nd.array(value) for key, value in {**inputs, **batch.arrays}.items()})
    outputs = executor.forward(is_train=True)
    executor.backward(mx.nd.ones(4))
    np.testing.assert_allclose(outputs[0].asnumpy(), loss, rtol=1e-6)
    for key, gradient in gradients.items():
        difference, length = error_norm(executor.grad_dict[key].asnumpy(), gradient)
        assert difference < 1e-6 * length


def test_a_loss_with_several_centres_for_each_person_is_refused():
    with pytest.raises(
        LatseError, match="^a loss with several centres for each person takes no regularisers$"
    ):
        margins.Regularised(margins.create("subcentre_arcface", 5), WEIGHTS[0])


def test_a_loss_without_class_centres_is_refused():
    with pytest.raises(LatseError, match="^a loss without class centres takes no regularisers$"):
        margins.Regularised(margins.create("triplet", 5), {"exclusive": 1.0})


@pytest.mark.parametrize("name", LOOPS)
def test_a_negative_weight_is_refused(name):
    with pytest.raises(LatseError, match=f"^{name} is -0.1, must be at least 0$"):
        regularised("cosface", {name: -0.1}, 5)
