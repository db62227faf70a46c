"""What a selection weighs, derived again in numpy; which gradients of which network it lets pass."""

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.symbols import encoders, margins, networks, selection
from latse.symbols.names import TWIN

CLASSES, SAMPLES = 5, 8
losses_of_a_batch = st.lists(
    st.floats(0, 50, width=32), min_size=2, max_size=40, unique=True
).map(lambda values: np.array(values, np.float32))  # fmt: skip


def weights(strategy, losses, scores=(), iteration=0):
    """The weights of a strategy, a float64 array (N,) for each network, and its term."""
    given = {
        "label": np.zeros(len(losses[0])),
        **({"iteration": np.full(len(losses[0]), iteration)} if strategy.inputs else {}),
    }
    arrays = [mx.nd.array(array) for array in (*given.values(), *losses, *scores)]
    strategy.initialize()
    *found, term = strategy(*arrays)
    assert len(found) == strategy.networks
    return [array.asnumpy().astype(float) for array in found], term.asnumpy()


def smallest(losses, count):
    """1 for so many of least loss, else 0."""
    chosen = np.zeros(len(losses))
    chosen[np.argsort(losses, kind="stable")[:count]] = 1
    return chosen


def kept_count(samples, noise_rate, iteration, ramp):
    """How many Co-teaching keeps: R(T) of its Algorithm 1, T in iterations; in whole millionths."""
    millionths = round(1e6 * noise_rate)
    if iteration < ramp:
        return max(samples * (10**6 * ramp - millionths * iteration) // (10**6 * ramp), 1)
    return max(samples * (10**6 - millionths) // 10**6, 1)


@settings(max_examples=60)
@given(
    losses_of_a_batch,
    st.integers(0, 99).map(lambda hundredths: hundredths / 100),
    st.integers(0, 30),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_co_teaching_gives_each_network_what_the_other_finds_easy(losses, rate, iteration, ramp, random):
    other = np.array(random.sample([*losses], len(losses)), np.float32)
    found, term = weights(selection.CoTeaching(rate, ramp), (losses, other), iteration=iteration)
    count = kept_count(len(losses), rate, iteration, ramp)
    np.testing.assert_allclose(found[0], smallest(other, count) * len(losses) / count, rtol=1e-6)
    np.testing.assert_allclose(found[1], smallest(losses, count) * len(losses) / count, rtol=1e-6)
    assert not term.any()


@settings(max_examples=40)
@given(losses_of_a_batch, st.sampled_from([1.0, 1.5, 3.0]), st.randoms(use_true_random=False))
def test_co_mining_weighs_up_what_both_find_easy(losses, weight, random):
    other = np.array(random.sample([*losses], len(losses)), np.float32)
    found, _ = weights(selection.CoMining(0.4, 0, weight), (losses, other))
    count = kept_count(len(losses), 0.4, 0, 0)
    easy = smallest(losses, count), smallest(other, count)
    for given_weights, theirs, own in zip(found, easy[::-1], easy):
        expected = np.where(theirs == 0, 0, np.where(own == 1, weight, 1))
        np.testing.assert_allclose(given_weights, expected / expected.mean(), rtol=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_de_coupling_keeps_those_of_whom_the_networks_differ(samples, classes, seed, alike):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2, samples, classes))
    scores[1] = np.where(rng.uniform(size=(samples, 1)) < alike, scores[0], scores[1])
    found, _ = weights(selection.DeCoupling(), rng.uniform(0, 9, (2, samples)), scores)
    differ = scores[0].argmax(axis=1) != scores[1].argmax(axis=1)
    expected = differ * samples / max(differ.sum(), samples / 10)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-6)


def test_de_coupling_keeps_nobody_where_all_agree_but_at_the_beginning():
    losses, scores = np.ones((2, SAMPLES)), [np.eye(SAMPLES, CLASSES)] * 2
    assert not np.any(weights(selection.DeCoupling(), losses, scores, 10**6)[0])
    assert not np.any(weights(selection.DeCoupling(begin=3), losses, scores, 3)[0])
    assert (np.array(weights(selection.DeCoupling(begin=3), losses, scores, 2)[0]) == 1).all()


@settings(max_examples=40)
@given(
    st.lists(losses_of_a_batch, min_size=1, max_size=4),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.sampled_from([0.0, 2.0]),
)
def test_mentornet_follows_the_percentile_of_the_losses(batches, percentile, decay, lambda2):
    """Batch after batch, its moving average in the place where the optimiser would move it."""
    strategy = selection.MentorNetPredefined(percentile, decay, lambda2, burn_in=0)
    strategy.initialize()
    level, average = strategy.level, 0.0
    for iteration, losses in enumerate(batches):
        ordered = np.sort(losses.astype(float))
        kept = min(decay, iteration / (iteration + 1))
        average = kept * average + (1 - kept) * ordered[int(np.floor(percentile * (len(losses) - 1) + 0.5))]
        arrays = [np.zeros(len(losses)), np.full(len(losses), iteration), losses]
        with mx.autograd.record():
            found, term = strategy(*map(mx.nd.array, arrays))
        term.backward()
        above = losses - average
        clear = np.abs(above) > 1e-4 if lambda2 == 0 else np.full(len(losses), True)
        expected = np.clip(1 - above / lambda2, 0, 1) if lambda2 else above <= 0
        np.testing.assert_allclose(found.asnumpy()[clear], expected[clear], atol=1e-4)
        assert not term.asnumpy().any()
        level.set_data(level.data() - level.grad())
        np.testing.assert_allclose(level.data().asnumpy(), [average], rtol=1e-4, atol=1e-5)


def test_mentornet_weighs_all_alike_while_it_burns_in():
    losses = [np.linspace(0, 9, SAMPLES)]
    for iteration, least in ((4, 1), (5, 0)):
        found, _ = weights(selection.MentorNetPredefined(burn_in=5), losses, iteration=iteration)
        assert found[0].min() == least and found[0].max() == 1


@pytest.mark.parametrize("name", [*selection.SELECTIONS])
def test_equal_losses_keep_as_many_as_others(name):
    """Which of them is not said; nobody counts twice."""
    strategy = selection.create(name)
    if name == "mentornet_predefined":
        strategy.level.init = mx.init.Constant(2.5)
    equal = [np.full(SAMPLES, 2.5)] * strategy.networks
    scores = [np.eye(SAMPLES, CLASSES)] * strategy.networks if strategy.has_scores else ()
    found, _ = weights(strategy, equal, scores, 10**6)
    if name in ("co_teaching", "co_mining"):
        assert [int((weight > 0).sum()) for weight in found] == [6, 6]  # 0.8 of 8
    elif name == "de_coupling":
        assert not np.any(found)  # equal scores too
    else:
        assert (found[0] == 1).all()  # none is above their percentile


@pytest.mark.parametrize("name", ["co_teaching", "co_mining"])
@pytest.mark.parametrize(("noise_rate", "ramp", "iteration"), [(0.0, 0, 7), (0.0, 10, 3), (0.5, 10, 0)])
def test_without_noise_and_at_the_start_all_are_kept(name, noise_rate, ramp, iteration):
    rng = np.random.default_rng(0)
    strategy = selection.create(name, noise_rate=noise_rate, ramp=ramp)
    found, _ = weights(strategy, rng.uniform(0, 9, (2, SAMPLES)), iteration=iteration)
    np.testing.assert_array_equal(found, np.ones((2, SAMPLES)))


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("co_teaching", {"noise_rate": 1.0}, r"noise_rate is 1.0, must be in \[0, 1\)"),
        ("co_teaching", {"noise_rate": -0.1}, r"noise_rate is -0.1, must be in \[0, 1\)"),
        ("co_teaching", {"ramp": -1}, "ramp is -1, must be at least 0"),
        (
            "co_teaching",
            {"rate": 1},
            "the selection 'co_teaching' has no parameter 'rate'; it has noise_rate",
        ),
        ("co_mining", {"weight": 0.5}, "weight is 0.5, must be at least 1"),
        ("de_coupling", {"begin": -1}, "begin is -1, must be at least 0"),
        ("mentornet_predefined", {"percentile": 1.5}, "percentile is 1.5, must be 0 to 1"),
        ("mentornet_predefined", {"decay": 1.0}, r"decay is 1.0, must be in \[0, 1\)"),
        ("mentornet_predefined", {"lambda2": -1.0}, "lambda2 is -1.0, must be at least 0"),
        ("mentornet_predefined", {"burn_in": -1}, "burn_in is -1, must be at least 0"),
        ("coteaching", {}, "unknown selection 'coteaching'; there are .* did you mean co_teaching"),
        (None, {"ramp": 1.0}, "it is a parameter of a strategy, but selection.name is null"),
    ],
)
def test_what_cannot_be_is_refused(name, parameters, sentence):
    with pytest.raises(LatseError, match=sentence):
        selection.check(name, **parameters)
    assert selection.parameters(None) == {}
    selection.check(None)


class Chosen(selection.Selection):
    """Weights that a test chooses."""

    networks = 2

    def __init__(self, *chosen):
        super().__init__()
        self._chosen = chosen

    def weights(self, F, losses, scores, label):
        return [loss * 0 + F.reshape(F.stack(*[F.ones((1,)) * one for one in weight]), shape=(-1,))
                for weight, loss in zip(self._chosen, losses)]  # fmt: skip


def parameter(name, shape):
    """A parameter that depends on its name alone."""
    drawn = np.random.default_rng([*name.encode()]).normal(0, 0.1, shape)
    return np.abs(drawn) if name.endswith(("gamma", "var")) else drawn


def bound(small_encoder, strategy, margin="arcface", also=()):
    """Outputs and gradients of a graph of that selection; also the embeddings of networks by their prefix."""

    def make():
        return encoders.create(small_encoder, dropout=0.0), margins.create(margin, CLASSES)

    network = networks.Selected(make, strategy)
    symbol = networks.trace(network)
    inner = [symbol.get_internals()[f"{prefix}fc1_output"] for prefix in also]
    symbol = mx.sym.Group([symbol, *map(mx.sym.BlockGrad, inner)])
    rng = np.random.default_rng(0)
    inputs = {
        "data": rng.uniform(0, 255, (3, 3, 112, 112)),
        "softmax_label": np.array([0, 1, 2]),
        "iteration": np.full(3, 50),
    }
    inputs = {name: inputs[name] for name in network.inputs}
    wanted = {name: "null" if name in inputs else "write" for name in symbol.list_arguments()}
    shapes = {name: array.shape for name, array in inputs.items()}
    executor = symbol.simple_bind(mx.cpu(), grad_req=wanted, **shapes)
    for name, array in {**executor.arg_dict, **executor.aux_dict}.items():
        array[:] = inputs[name] if name in inputs else parameter(name, array.shape)
    executor.forward(is_train=True)
    executor.backward()
    names = [
        *symbol.list_outputs()[: len(executor.outputs) - len(also)],
        *(f"{prefix}fc1_output" for prefix in also),
    ]
    outputs = {name: array.asnumpy() for name, array in zip(names, executor.outputs)}
    return outputs, {name: array.asnumpy() for name, array in executor.grad_dict.items() if array is not None}


def moved(gradients):
    """Whether the first and the second network get a gradient."""
    sides = [[name for name in gradients if name.startswith(TWIN) == second] for second in (False, True)]
    return [any(gradients[name].any() for name in side) for side in sides]


def test_each_network_learns_from_its_own_weights_alone(small_encoder):
    assert moved(bound(small_encoder, Chosen([0, 0, 0], [0, 0, 0]))[1]) == [False, False]
    assert moved(bound(small_encoder, Chosen([0, 2, 0], [0, 0, 0]))[1]) == [True, False]
    assert moved(bound(small_encoder, Chosen([0, 0, 0], [0, 2, 0]))[1]) == [False, True]
    outputs, gradients = bound(small_encoder, Chosen([0, 2, 0], [0, 0, 0]))
    np.testing.assert_array_equal(outputs["kept_output"], [0, 1, 0])
    np.testing.assert_allclose(outputs["loss_output"], [0, 2 * outputs["dloss_output"][1], 0], rtol=1e-6)
    twice = bound(small_encoder, Chosen([0, 4, 0], [0, 0, 0]))[1]
    for name, gradient in gradients.items():
        np.testing.assert_allclose(twice[name], 2 * gradient, rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_network_that_learns_alone_has_the_gradients_of_a_plain_one(small_encoder):
    """All weights 1: the first network is trained as it would be without a selection."""
    _, gradients = bound(small_encoder, Chosen([1, 1, 1], [1, 1, 1]))
    one = type("One", (Chosen,), {"networks": 1})([1, 1, 1])
    _, alone = bound(small_encoder, one)
    assert {f"{TWIN}{name}" for name in alone} | {*alone} == {*gradients}
    for name, gradient in alone.items():
        np.testing.assert_array_equal(gradients[name], gradient, err_msg=name)


def test_co_teaching_exchanges(small_encoder):
    """The first network learns from what the second finds easiest, and the second from the first's."""
    alone = selection.CoTeaching(noise_rate=0.5, ramp=0)  # one of three samples
    outputs, _ = bound(small_encoder, alone)
    both = type(
        "Both", (selection.Selection,), {"networks": 2, "weights": lambda self, F, losses, *_: losses}
    )()
    seen, _ = bound(small_encoder, both)
    mine = seen["dloss_output"].astype(float)
    other = np.sqrt(np.maximum(seen["loss_output"] - mine**2, 0))  # losses weighed by themselves
    assert np.argmin(mine) != np.argmin(other)  # else the test shows nothing
    np.testing.assert_array_equal(outputs["kept_output"], smallest(other, 1))
    expected = 3 * (mine * smallest(other, 1) + other * smallest(mine, 1))
    np.testing.assert_allclose(outputs["loss_output"], expected, rtol=1e-4)


def test_de_coupling_sees_the_cosines_with_the_class_centres(small_encoder):
    outputs, _ = bound(small_encoder, selection.DeCoupling(), also=("", TWIN))
    predicted = []
    for prefix in ("", TWIN):
        embedding, centres = outputs[f"{prefix}fc1_output"], parameter(f"{prefix}fc7_weight", (CLASSES, 512))
        predicted.append(
            np.argmax(embedding @ (centres / np.linalg.norm(centres, axis=1)[:, None]).T, axis=1)
        )
    differ = predicted[0] != predicted[1]
    assert 0 < differ.sum() < len(differ)  # else the test shows nothing
    np.testing.assert_array_equal(outputs["kept_output"], differ)


def test_the_nearest_of_several_centres_is_what_a_network_predicts(small_encoder):
    outputs, _ = bound(small_encoder, selection.DeCoupling(), "subcentre_arcface", also=("", TWIN))
    predicted = []
    for prefix in ("", TWIN):
        centres = parameter(f"{prefix}fc7_weight", (CLASSES, 3, 512)).reshape(-1, 512)
        cosines = outputs[f"{prefix}fc1_output"] @ (centres / np.linalg.norm(centres, axis=1)[:, None]).T
        predicted.append(np.argmax(cosines, axis=1) // 3)
    np.testing.assert_array_equal(outputs["kept_output"], predicted[0] != predicted[1])


def test_a_loss_without_class_centres_is_refused_where_they_are_needed(small_encoder):
    with pytest.raises(LatseError, match="the selection compares embeddings with class centres, but the"):
        bound(small_encoder, selection.DeCoupling(), "triplet")
    bound(small_encoder, selection.CoTeaching(), "triplet")


def test_every_shipped_encoder_has_the_second_network_drawn_last():
    """So that the first one begins with the parameters that it has alone."""
    for name in encoders.ENCODERS:
        own = networks.trace(encoders.create(name)).list_inputs()
        assert max(own) < TWIN, name
