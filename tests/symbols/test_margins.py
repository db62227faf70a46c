"""Every loss by name: value and gradients against its formula (`closed_forms`), labels, tracing, registry."""

import math
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from closed_forms import (
    CASES,
    FORMULAS,
    PSI,
    UNNORMALISED,
    Batch,
    along_the_sphere,
    at_angles,
    error_norm,
    evaluate,
    evaluate_named,
    expected,
    further_inputs,
    has_scale,
    random_arrays,
    unit,
    with_arrays,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.symbols import margins
from latse.symbols.margins import geometry

PI = math.pi
NAMES = list(FORMULAS)
every_case = pytest.mark.parametrize("name, parameters", CASES)
every_loss = pytest.mark.parametrize("name", NAMES)
OVER_CENTRES = [case for case in CASES if case[0] != "triplet"]
OF_A_MARGIN = [case for case in OVER_CENTRES if case[0] not in (*UNNORMALISED, "subcentre_arcface")]
# Their loss is a difference, of numbers of about 1 that fp32 has to 1e-7.
DIFFERENCES = {"adaptiveface": 2e-6, "triplet": 2e-6}
# Of finite differences, relative to the length of each vector.
STEP = 1e-7
# Below this fp32 has no digits left, and gradients go through numbers of the size of the loss.
LOWEST = 1e-36


def breaks(name, parameters):
    """The angles where h is not smooth, and π - m2 of ArcFace where it turns."""
    if name.startswith("arcface"):
        return [PI / 2, PI - parameters.get("m2", 0.5)]
    if name.startswith("sphereface"):
        m1 = parameters.get("m1", 4.0 if name == "sphereface_annealed" else 1.35)
        return [k * PI / m1 for k in range(1, math.ceil(m1))]
    return [PI - 0.5]


def hard_angles(name, parameters):
    return [0.0, 1e-4, PI / 2, PI - 1e-4, PI, *breaks(name, parameters)]


def with_scale(name, parameters, s):
    return {**parameters, "s": s} if has_scale(name) else parameters


def parallel(name, sign, seed=0, classes=5):
    """Embeddings at 0 (sign 1) or π (-1) exactly: class centres as initialised, times a power of two."""
    rng = np.random.default_rng(seed)
    several = (3,) if name == "subcentre_arcface" else ()
    centres = rng.normal(0, 0.01, (classes, *several, 512)).astype(np.float32)
    arrays = {**random_arrays(name, classes, rng), "fc7_weight": centres}
    if several:
        centres = centres[:, 0]
    label = rng.integers(0, classes, 3)
    factor = sign * 2.0 ** rng.integers(-6, 7, (3, 1))
    return Batch((factor * centres[label]).astype(np.float32), label, classes, arrays)


def assert_losses(name, found, right):
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=DIFFERENCES.get(name, LOWEST))


def assert_gradients(found, right, tolerance=1e-4):
    assert set(right) <= set(found)
    for key, gradient in right.items():
        difference, length = error_norm(found[key], gradient)
        # A class centre of 0.01·√512 divides, and s multiplies, what has been rounded to 0 before.
        assert difference <= tolerance * length + 1e4 * LOWEST, key


def slope(formula, batch, key, direction, step):
    """Central difference of the sum of the losses along `direction` of one of the arrays."""
    sides = []
    for side in (step, -step):
        arrays = {"data": batch.embedding, **batch.arrays}
        arrays[key] = arrays[key].astype(np.float64) + side * direction
        moved = replace(batch, embedding=arrays.pop("data"), arrays=arrays)
        sides.append(formula(moved).loss.sum())
    return (sides[0] - sides[1]) / (2 * step)


def assert_slopes(name, parameters, batch, seed=0):
    """Check the closed form's gradients along three directions, one being their own, at the batch itself."""
    rng = np.random.default_rng(seed)
    loss, gradients, _ = expected(name, parameters, batch)
    rounding = 1e-15 * np.abs(loss).sum() / STEP
    for key, gradient in gradients.items():
        array = batch.embedding if key == "data" else batch.arrays[key]
        size = np.linalg.norm(array, axis=-1, keepdims=True) if array.shape[-1] == 512 else 1.0
        largest = np.linalg.norm(gradient * size)
        for direction in (gradient, rng.normal(size=array.shape), rng.normal(size=array.shape)):
            along = direction * size / max(np.linalg.norm(direction), 1e-300)
            found = slope(lambda moved: expected(name, parameters, moved), batch, key, along, STEP)
            assert abs(found - (gradient * along).sum()) <= 2e-5 * largest + rounding, key


# The scale of AdaCos is a constant to its gradient: that of `normalised_softmax`, which is here.
@pytest.mark.parametrize("name, parameters", [case for case in OVER_CENTRES if case[0] != "adacos"])
def test_the_closed_forms_are_those_of_finite_differences(name, parameters):
    for s in (1.0, 128.0):
        scaled = with_scale(name, parameters, s)
        for theta in (1e-4, 0.5, 1.57, 2.2, PI - 1e-4):
            assert_slopes(name, scaled, at_angles(name, [theta] * 3, seed=int(s), radius=s))
        for sign in (1, -1):
            assert_slopes(name, scaled, parallel(name, sign))


@every_case
@settings(max_examples=25)
@example(theta=[0.0, PI], classes=2, s=128.0, seed=0)
@example(theta=[0.0] * 6 + [PI] * 6, classes=3, s=64.0, seed=1)
@given(
    theta=st.lists(st.floats(0, PI), min_size=1, max_size=6),
    classes=st.integers(2, 40),
    s=st.floats(1, 128),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_loss_is_that_of_the_formula(name, parameters, theta, classes, s, seed):
    batch = at_angles(name, theta, max(classes, 3) if "adacos" in name else classes, seed, radius=s)
    parameters = with_scale(name, parameters, s)
    loss, gradients = evaluate_named(name, parameters, batch)
    right = expected(name, parameters, batch)
    assert_losses(name, loss, right.loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("s", [1.0, 64.0, 128.0])
@pytest.mark.parametrize("name, parameters", OVER_CENTRES)
def test_loss_and_gradients_at_the_hard_angles(name, parameters, s):
    scaled = with_scale(name, parameters, s)
    for theta in hard_angles(name, parameters):
        # Alone, as the gradients of other angles would hide those of one whose probability is almost 1.
        batch = at_angles(name, [theta] * 3, seed=int(s), radius=s)
        loss, gradients = evaluate_named(name, scaled, batch)
        right = expected(name, scaled, batch)
        assert_losses(name, loss, right.loss)
        assert_gradients(gradients, right.gradients)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name, parameters", OVER_CENTRES)
def test_exactly_at_0_and_pi_the_gradient_along_theta_is_0(name, parameters, sign):
    for s in (1.0, 64.0, 128.0):
        for seed in range(3):
            scaled, batch = with_scale(name, parameters, s), parallel(name, sign, seed)
            loss, gradients = evaluate_named(name, scaled, batch)
            right = expected(name, scaled, batch)
            assert_losses(name, loss, right.loss)
            assert_gradients(gradients, right.gradients)


@pytest.mark.parametrize("name, parameters", OF_A_MARGIN)
def test_exactly_at_0_no_other_class_no_gradient(name, parameters):
    """What is left of the gradient is along θ alone if the other class is opposite: nothing."""
    batch = parallel(name, 1, classes=3)
    batch.arrays["fc7_weight"][:] = [[1], [-1], [-1]] * np.abs(batch.arrays["fc7_weight"][:1])
    batch = replace(batch, embedding=8 * batch.arrays["fc7_weight"][:1], label=np.array([0]))
    _, gradients = evaluate_named(name, with_scale(name, parameters, 1.0), batch)
    assert np.linalg.norm(gradients["data"]) * np.linalg.norm(batch.embedding) < 2e-6


@pytest.mark.parametrize("s", [64.0, 128.0])
def test_a_probability_of_1_to_the_last_bit_still_has_a_gradient(s):
    batch = at_angles("linearface", [0.0], seed=5)
    loss, gradients = evaluate_named("linearface", {"s": s}, batch)
    right = expected("linearface", {"s": s}, batch)
    assert 1 - np.exp(-right.loss[0]) == 0
    assert 0 < right.loss[0] < 1e-20
    assert_losses("linearface", loss, right.loss)
    if s == 64:  # at 128 it is below the smallest number of fp32
        assert 0 < np.linalg.norm(right.gradients["data"]) < 1e-20
        assert_gradients(gradients, right.gradients)


@every_case
def test_the_embedding_may_be_of_fp16(name, parameters):
    scaled = with_scale(name, parameters, 64.0)
    for theta in hard_angles(name, parameters):
        batch = at_angles(name, [theta] * 3, seed=2)
        batch = replace(batch, embedding=batch.embedding.astype(np.float16))
        loss, gradients = evaluate_named(name, scaled, batch)
        right = expected(name, scaled, batch)
        assert loss.dtype == np.float32
        assert_losses(name, loss, right.loss)
        found, gradient = gradients.pop("data"), right.gradients.pop("data")
        assert found.dtype == np.float16
        # Half of its last place, or of its smallest number.
        rounding = np.abs(gradient) * 2.0**-11 + 2.0**-25
        assert (np.abs(found - gradient) <= rounding + 1e-4 * np.linalg.norm(gradient)).all()
        assert_gradients(gradients, right.gradients)


@every_case
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_embedding_of_zeros_gives_what_is_finite(name, parameters, dtype):
    batch = at_angles(name, [1.0, 0.3], seed=4)
    embedding = batch.embedding.astype(dtype)
    embedding[0] = 0
    loss, gradients = evaluate_named(name, parameters, replace(batch, embedding=embedding))
    assert np.isfinite(loss).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("name, parameters", OF_A_MARGIN)
@settings(max_examples=5)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_lengths_do_not_matter(name, parameters, of_embedding, of_centres):
    batch = at_angles(name, [0.3, 1.2, 2.9], seed=8)
    other = replace(
        batch,
        embedding=batch.embedding * np.float32(of_embedding),
        arrays={**batch.arrays, "fc7_weight": batch.arrays["fc7_weight"] * np.float32(of_centres)},
    )
    loss, gradients = evaluate_named(name, parameters, batch)
    loss_of_other, gradients_of_other = evaluate_named(name, parameters, other)
    np.testing.assert_allclose(loss_of_other, loss, rtol=1e-4, atol=2e-6)
    assert_gradients(
        {key: gradients_of_other[key] for key in gradients},
        {
            **gradients,
            "data": gradients["data"] / of_embedding,
            "fc7_weight": gradients["fc7_weight"] / of_centres,
        },
    )


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize("name, parameters", OVER_CENTRES)
def test_several_of_the_first_or_the_last_class(name, parameters, position, classes):
    if "adacos" in name and classes < 3:
        classes = 3
    rng = np.random.default_rng(1)
    label = np.full(3, 0 if position == "first" else classes - 1)
    embedding = rng.normal(size=(3, 512)).astype(np.float32)
    batch = Batch(embedding, label, classes, random_arrays(name, classes, rng))
    scaled = with_scale(name, parameters, 16.0)
    loss, gradients = evaluate_named(name, scaled, batch)
    right = expected(name, scaled, batch)
    assert_losses(name, loss, right.loss)
    assert_gradients(gradients, right.gradients)


@pytest.mark.parametrize("label", [-1, -0.5, 0.5, 5, 1e9, math.nan, math.inf, -math.inf])
@every_loss
def test_a_label_that_is_no_class_gives_nan_and_leaves_the_others(name, label):
    batch = at_angles(name, [0.4, 0.8, 1.2, 1.6, 2.0], seed=3)
    wrong = batch.label.astype(np.float32)
    wrong[2] = label
    rest = np.array([0, 1, 3, 4])
    loss, _ = evaluate_named(name, {}, replace(batch, label=wrong))
    assert np.isnan(loss[2])
    if name == "adacos":  # its scale is that of the whole batch, where the sample counts as one of person 0
        right = expected(name, {}, replace(batch, label=np.where(np.arange(5) == 2, 0, batch.label))).loss[
            rest
        ]
    else:
        right = expected(
            name, {}, replace(batch, embedding=batch.embedding[rest], label=batch.label[rest])
        ).loss
    assert_losses(name, loss[rest], right)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float64"])
@every_loss
def test_labels_may_be_of_any_type(name, dtype):
    batch = at_angles(name, [0.4, 1.1, 2.0], seed=7)
    block = with_arrays(margins.create(name, batch.classes), batch.arrays)
    inputs = mx.nd.array(batch.embedding), *map(mx.nd.array, further_inputs(block, batch))
    found = block(inputs[0], mx.nd.array(batch.label, dtype=dtype), *inputs[1:])
    np.testing.assert_array_equal(found.asnumpy(), evaluate_named(name, {}, batch)[0])


@every_case
def test_traced_and_bound_it_is_the_same(name, parameters):
    batch = at_angles(name, [0.1, 0.9, 1.5, 3.0], seed=6)
    loss, gradients = evaluate_named(name, parameters, batch)
    block = margins.create(name, batch.classes, **parameters)
    block.set_embedding_size(batch.embedding.shape[1])  # as the training graph does
    symbol = block(mx.sym.var("data"), mx.sym.var("label"), *map(mx.sym.var, block.inputs))
    inputs = {
        "data": batch.embedding,
        "label": batch.label,
        **dict(zip(block.inputs, further_inputs(block, batch))),
    }
    executor = symbol.simple_bind(
        mx.cpu(),
        grad_req={key: "write" if key in gradients else "null" for key in symbol.list_arguments()},
        **{key: value.shape for key, value in inputs.items()},
    )
    assert {array.dtype for array in executor.arg_arrays} == {np.float32}
    with_arrays(block, batch.arrays)
    arrays = {**inputs, **{key: value.data() for key, value in block.collect_params().items()}}
    executor.copy_params_from({key: mx.nd.array(value) for key, value in arrays.items()})
    outputs = executor.forward(is_train=True)
    executor.backward(mx.nd.ones(len(batch.label)))
    np.testing.assert_allclose(outputs[0].asnumpy(), loss, rtol=1e-6)
    for key, gradient in gradients.items():
        found = executor.grad_dict[key].asnumpy()
        np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("name", PSI)
@settings(max_examples=20)
@given(st.floats(0, PI), st.floats(1e-3, 128))
def test_the_target_logit_is_h(name, theta, s):
    found = margins.create(name, 3, s=s).target_logit(mx.nd, mx.nd.array([theta], dtype="float64"))
    assert found.dtype == np.float64
    assert abs(found.asscalar() - s * PSI[name](np.array(theta))[0]) <= 1e-13 * s * 4


@pytest.mark.parametrize("m1", [1, 1.35, 2, 3.7, 4])
def test_spherefaces_psi_falls_without_a_step(m1):
    theta = np.linspace(0, PI, 20001)
    margin = margins.create("sphereface", 2, s=1, m1=m1)
    found = margin.target_logit(mx.nd, mx.nd.array(theta, dtype="float64")).asnumpy()
    # ψ(0) = 1 and ψ' = -m1·|sin(m1·θ)|, so that ψ is its integral.
    slopes = -m1 * np.abs(np.sin(m1 * theta))
    integral = 1 + np.concatenate([[0], np.cumsum((slopes[1:] + slopes[:-1]) / 2 * np.diff(theta))])
    np.testing.assert_allclose(found, integral, rtol=0, atol=1e-6)
    assert np.diff(found).max() < 1e-12
    assert -np.diff(found).min() < m1 * theta[1] + 1e-12
    inside = theta <= PI / m1
    np.testing.assert_allclose(found[inside], np.cos(m1 * theta[inside]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("cosface", {"m3": 0}),
        ("arcface", {"m2": 0}),
        ("arcface_easy_margin", {"m2": 0}),
        ("arcface_shifted", {"m2": 0}),
        ("sphereface", {"m1": 1}),
        ("sphereface_literal", {"m1": 1}),
        ("sphereface_annealed", {"m1": 1}),
        ("combined", {"m1": 1, "m2": 0, "m3": 0}),
        ("sv_am_softmax", {"m3": 0, "t": 1}),
    ],
)
def test_without_a_margin_all_are_the_normalised_softmax(name, parameters):
    batch = at_angles("normalised_softmax", np.linspace(0.01, 3.1, 9), seed=2)
    plain, plain_gradients = evaluate_named("normalised_softmax", {}, batch)
    loss, gradients = evaluate_named(name, parameters, batch)
    np.testing.assert_allclose(loss, plain, rtol=1e-5)
    assert_gradients(gradients, plain_gradients, 1e-5)


@settings(max_examples=60)
@given(
    angle=st.one_of(st.floats(0, PI), st.floats(0, 1e-3), st.floats(PI - 1e-3, PI)),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_angle_is_exact_to_rounding_everywhere(angle, seed):
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(1, 512)))[0]
    aside = unit(along_the_sphere(rng.normal(size=x.shape), x))[0]
    y = np.cos(angle) * x + np.sin(angle) * aside
    found = geometry.angle(mx.nd, mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64")).asscalar()
    assert abs(found - angle) < 2e-11
    assert 0 <= found <= PI


def test_class_centres_give_cosines():
    batch = at_angles("arcface", [0.0, 0.7, PI], classes=6, seed=3)
    centres = unit(batch.arrays["fc7_weight"].astype(np.float64))[0]
    block = with_arrays(margins.ClassCentres(centres.shape), {"fc7_weight": centres})
    right = unit(batch.embedding.astype(np.float64))[0] @ centres.T
    np.testing.assert_allclose(block(mx.nd.array(batch.embedding)).asnumpy(), right, rtol=0, atol=1e-6)
    assert [*block.collect_params()] == ["fc7_weight"]


WEIGHT, BIAS = {"fc7_weight": (10, 512)}, {"fc7_bias": (10,)}
SHAPES = {
    "softmax_bias": {**WEIGHT, **BIAS},
    "centre_loss": {**WEIGHT, **BIAS, "fc7_centre_running": (10, 512)},
    "subcentre_arcface": {"fc7_weight": (10, 3, 512)},
    "adacos": {**WEIGHT, "fc7_scale_running": (1,)},
    "adaptiveface": {**WEIGHT, "fc7_margin": (10, 1)},
    "triplet": {},
}


@every_loss
def test_the_parameters_by_name(name):
    block = margins.create(name, 10)
    block.set_embedding_size(512)
    assert {key: value.shape for key, value in block.collect_params().items()} == SHAPES.get(name, WEIGHT)


@every_loss
def test_an_embedding_may_be_of_any_length(name):
    batch = at_angles(name, [0.5, 1.1, 1.6], seed=7)
    first = {key: array[..., :20] if array.shape[-1] == 512 else array for key, array in batch.arrays.items()}
    batch = replace(batch, embedding=batch.embedding[:, :20], arrays=first)
    loss, gradients = evaluate_named(name, {}, batch)
    right = expected(name, {}, batch)
    assert_losses(name, loss, right.loss)
    for key, gradient in right.gradients.items():
        difference, length = error_norm(gradients[key], gradient)
        assert difference <= 1e-4 * length, key


@every_loss
def test_class_centres_are_initialised_as_small_noise(name):
    block = margins.create(name, 100)
    block.set_embedding_size(512)
    with_arrays(block, {})
    for key, parameter in block.collect_params(".*weight").items():
        assert abs(parameter.data().asnumpy().std() - 0.01) < 2e-4, key


def test_every_loss_is_tested():
    assert set(FORMULAS) == set(margins.MARGINS)
    assert {name for name, _ in CASES} == set(margins.MARGINS)


def test_an_unknown_loss_is_refused():
    with pytest.raises(
        LatseError, match="^unknown margin 'center'; there are softmax, .*, triplet and FILE.py:CLASS$"
    ):
        margins.create("center", 10)
    with pytest.raises(LatseError, match="^unknown margin 'arcface:ArcFace'; there are"):
        margins.find("arcface:ArcFace")


def test_an_unknown_parameter_is_refused():
    with pytest.raises(LatseError, match="^the margin 'arcface' has no parameter 'm3'; it has s, m2$"):
        margins.create("arcface", 10, m3=0.2)
    with pytest.raises(LatseError, match="^the margin 'softmax' has no parameter 'classes'; it has none$"):
        margins.check("softmax", classes=3)


def test_parameters_come_with_their_defaults():
    assert dict(margins.parameters("linearface")) == {"s": 64.0, "a": 0.88, "b": 0.88}
    assert dict(margins.parameters("adacos")) == {}
    with pytest.raises(LatseError, match="unknown margin"):
        margins.parameters("margin")


# Name -> the lowest value of each parameter that has one; s, where there is one, is positive.
LOWEST_ALLOWED = {
    "softmax": {},
    "softmax_bias": {},
    "normalised_softmax": {},
    "sphereface": {"m1": 1},
    "sphereface_annealed": {"m1": 1, "lambda_min": 0, "lambda_base": 0, "lambda_gamma": 0},
    "sphereface_literal": {"m1": 1},
    "cosface": {"m3": 0},
    "arcface": {"m2": 0},
    "subcentre_arcface": {"m2": 0},
    "arcface_easy_margin": {"m2": 0},
    "arcface_shifted": {"m2": 0},
    "combined": {"m1": 1, "m2": 0, "m3": 0},
    "linearface": {"a": 0},
    "sv_am_softmax": {"m3": 0, "t": 1},
    "adacos_fixed": {},
    "adacos": {},
    "adaptiveface": {"m3": 0, "weight": 0},
    "centre_loss": {"weight": 0, "alpha": 0},
    "triplet": {"m": 0},
}
ANY = {"linearface": {"b"}, "subcentre_arcface": {"centres"}}


@every_loss
def test_parameters_have_their_ranges(name):
    assert set(margins.parameters(name)) - ANY.get(name, set()) - {"s"} == set(LOWEST_ALLOWED[name])
    for parameter, lowest in LOWEST_ALLOWED[name].items():
        margins.check(name, **{parameter: lowest})
        for value in (lowest - 0.01, math.nan):
            with pytest.raises(
                LatseError, match=f"^{parameter} is {value}, must be (at least|from) {lowest}"
            ):
                margins.check(name, **{parameter: value})


def test_there_is_a_centre_for_each_person_at_least():
    """With one it is ArcFace, to the bit."""
    with pytest.raises(LatseError, match="^centres is 0, must be at least 1$"):
        margins.check("subcentre_arcface", centres=0)
    batch = at_angles("arcface", [0.3, 1.0, 2.9], seed=3)
    found, right = (
        evaluate_named(name, more, batch)
        for name, more in (("subcentre_arcface", {"centres": 1}), ("arcface", {}))
    )
    np.testing.assert_array_equal(found[0], right[0])
    for key in ("data", "fc7_weight"):
        np.testing.assert_array_equal(found[1][key], right[1][key])


@pytest.mark.parametrize("name", ["arcface", "arcface_easy_margin", "arcface_shifted"])
def test_arcfaces_margin_is_at_most_pi(name):
    margins.check(name, m2=PI)
    with pytest.raises(LatseError, match="^m2 is 3.2, must be from 0 to 3.14159$"):
        margins.check(name, m2=3.2)


@pytest.mark.parametrize("name", ["adacos", "adacos_fixed"])
def test_adacos_needs_three_people(name):
    with pytest.raises(LatseError, match="number of people, which is 2, not at least 3"):
        margins.create(name, 2)


def test_evaluate_sees_the_arrays_it_is_given():
    """The helper of all these tests: another bias, another loss."""
    batch = at_angles("softmax_bias", [1.0], seed=0, radius=1.0)
    first = evaluate(margins.create("softmax_bias", 5), batch)[0]
    batch.arrays["fc7_bias"] = batch.arrays["fc7_bias"] + np.arange(5, dtype=np.float32)
    assert evaluate(margins.create("softmax_bias", 5), batch)[0] != first
