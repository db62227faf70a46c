"""Mixed precision: what is float16, how far that is from float32, and runs with a scaled loss."""

import json
import math

import mxnet as mx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latse import recipe as recipes
from latse.cli import main
from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.plan import memonger
from latse.symbols.encoders import ENCODERS
from latse.train import learners, precision, state
from latse.train.state import RunState
from latse.train.trainer import Trainer
from latse.train.training import Training, TrainingGraph, inference, traced
from latse.train.verdicts import KeepAll

# MXNet multiplies no float16 on CPU: the products are emulated, all else is float16.
EMULATED = "train.precision=float16_emulated"
STUDENT = ("decoder.enabled=true", "decoder.widths=[64, 32, 32, 16]", "filter.k=1")
NETWORKS = {"teacher": (), "student": STUDENT}
BATCH, CLASSES = 4, 5


def built(recipe, *overrides, batch=BATCH):
    return traced(recipe("encoder.dropout=0.0", *overrides), CLASSES, batch)


def internals(symbol, shapes):
    """Return {name: (shape, type)} of every array of the graph."""
    inside = symbol.get_internals()
    _, found, _ = inside.infer_shape(**shapes)
    _, types, _ = inside.infer_type(**dict.fromkeys(shapes, "float32"))
    return dict(zip(inside.list_outputs(), zip(found, map(np.dtype, types))))


def inputs(shapes, scale=1.0):
    """Made-up inputs: whole grey levels, faces in [-1, 1], every third sample refused."""
    values, count = np.random.default_rng(0), shapes["softmax_label"][0]
    faces = values.uniform(-1, 1, shapes["data"])
    made = {"mean_face": faces.astype(np.float32), "iteration": np.zeros(count, np.float32)}
    made["data"] = values.integers(0, 256, shapes["data"]).astype(np.float32)
    made["softmax_label"] = (np.arange(count) % CLASSES).astype(np.float32)
    made["keep"] = (np.arange(count) % 3 > 0).astype(np.float32)
    made["loss_scale"] = np.full(count, scale, np.float32)
    return {name: made[name] for name in shapes}


def parameters(symbol, shapes):
    """Return made-up float32 parameters by name: weights of He's deviation, factors near 1, shifts near 0."""
    values = np.random.default_rng(1)
    arguments, _, _ = symbol.infer_shape(**shapes)
    made = {}
    for name, shape in zip(symbol.list_arguments(), arguments):
        if name.endswith("weight"):
            made[name] = values.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        elif name.endswith("gamma"):
            made[name] = (0.25 if "relu" in name else 1) + values.normal(0, 0.05, shape)
        else:
            made[name] = values.normal(0, 0.1, shape)
        if name.startswith("decoder_conv0_"):
            made[name] *= 0.05  # as at the start of a training: tanh in its steep part
    return {name: array.astype(np.float32) for name, array in made.items() if name not in shapes}


def stepped(symbol, shapes, given, scale=1.0):
    """Return outputs, and gradients over the scale, both float64 by name, of one step."""
    made = {**given, **inputs(shapes, scale)}
    requests = {name: "null" if name in shapes else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), requests, dict.fromkeys(shapes, "float32"), **shapes)
    for name, array in executor.arg_dict.items():
        array[:] = mx.nd.array(made[name]).astype(array.dtype)
    for name, array in executor.aux_dict.items():
        array[:] = name.endswith("var")
    executor.forward(is_train=True)
    executor.backward()
    mx.nd.waitall()
    outputs = {name: array.asnumpy().astype(float) for name, array in executor.output_dict.items()}
    found = {name: array for name, array in executor.grad_dict.items() if array is not None}
    return outputs, {name: array.asnumpy().astype(float) / scale for name, array in found.items()}


def off(found, expected):
    """Return the norm of the difference over that of what is expected."""
    found, expected = (np.concatenate([np.ravel(array) for array in arrays]) for arrays in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_nearly_all_activations_are_float16_and_what_needs_float32_has_it(tiny_recipe, encoder, network):
    overrides = f"encoder.name={encoder}", "train.precision=float16", *NETWORKS[network]
    symbol, shapes = built(tiny_recipe, *overrides, "decoder.widths=[512, 256, 128, 64]")
    found = internals(symbol, shapes)
    arguments = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    for name in arguments:
        # The decoder's last filters are filled up with zeros before they become float16.
        is_half = name.endswith(("weight", "bias")) and not name.startswith(("fc7_", "decoder_conv0_"))
        assert found[name][1] == ("float16" if is_half else "float32"), name
    for name in ("fc1_output", "dloss_output", "loss_output"):
        assert found[name][1] == "float32"
    images = {name: (shape, kind) for name, (shape, kind) in found.items() if len(shape) == 4}
    encoded = {
        name: entry for name, entry in images.items() if not name.startswith(("generated", "_", "ssim"))
    }
    sizes = {"float16": 0, "float32": 0, "float64": 0}
    for name, (shape, kind) in encoded.items():
        if name not in arguments and shape[1] > 3:
            sizes[kind.name] += math.prod(shape)
    assert sizes["float16"] > 0.97 * sum(sizes.values())


def test_float32_is_the_graph_as_it_was(tiny_recipe):
    recipe = tiny_recipe(*STUDENT)
    symbol, shapes = traced(recipe, CLASSES, 2)
    again = precision.prepared(recipe, symbol, shapes)
    assert again[0] is symbol
    assert again[1] == shapes


def test_float16_holds_the_normalised_grey_levels_exactly():
    normalised = (np.arange(256, dtype=np.float32) - 127.5) * np.float32(0.0078125)
    np.testing.assert_array_equal(normalised.astype(np.float16).astype(np.float32), normalised)


def unrounded(symbol):
    """Return a float16 graph with float32 in the place of float16."""
    content = json.loads(symbol.tojson().replace('"float16"', '"float32"'))
    for node in content["nodes"]:
        if node["op"] == "null" and "__dtype__" in node.get("attrs", {}):
            node["attrs"]["__dtype__"] = "0"
    return mx.sym.load_json(json.dumps(content))


@pytest.fixture(scope="module", params=NETWORKS)
def steps(tiny_recipe, request):
    """(outputs, gradients) of one step of several graphs of the same network with the same parameters.

    `rounded` is the float32 graph with its weights rounded to float16: no float16 graph is much nearer.
    """
    network = NETWORKS[request.param]
    plain, shapes = built(tiny_recipe, *network)
    half, half_shapes = built(tiny_recipe, EMULATED, *network)
    given = parameters(plain, shapes)
    rounded = {
        name: array.astype(np.float16).astype(np.float32)
        if name.endswith("weight") and name != "fc7_weight"
        else array
        for name, array in given.items()
    }
    return {
        "single": stepped(plain, shapes, given),
        "rounded": stepped(plain, shapes, rounded),
        "unrounded": stepped(unrounded(half), half_shapes, given, 1024),
        "half": stepped(half, half_shapes, given, 1024),
    }


def test_without_the_rounding_it_is_the_float32_graph(steps):
    (outputs, gradients), (same_outputs, same_gradients) = steps["single"], steps["unrounded"]
    for name, array in outputs.items():
        np.testing.assert_allclose(same_outputs[name], array, rtol=1e-5, err_msg=name)
    assert same_gradients.keys() == gradients.keys()
    assert off([same_gradients[name] for name in gradients], gradients.values()) < 1e-4


# The norm of the difference of a part's gradient over the norm of that gradient, at most. It depends on the
# parameters: over six draws of the teacher's, that of pre_fc1_ lay between 0.006 and 0.022.
BOUNDS = {"fc7_": 0.01, "pre_fc1_": 0.03, "stage": 0.05, "conv0_": 0.06, "decoder_": 0.12}


def test_loss_and_gradients_agree_with_float32(steps):
    (outputs, gradients), (half_outputs, half_gradients) = steps["single"], steps["half"]
    for name, array in outputs.items():
        # The similarity of such faces is near 0; what is trained is its distance from 1.
        found, expected = (
            (1 - half_outputs[name], 1 - array) if "ssim" in name else (half_outputs[name], array)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)
    assert all(np.isfinite(array).all() for array in half_gradients.values())
    for part, bound in BOUNDS.items():
        names = [name for name in gradients if name.startswith(part)]
        if names:
            expected = [gradients[name] for name in names]
            error = off([half_gradients[name] for name in names], expected)
            least = off([steps["rounded"][1][name] for name in names], expected)
            assert error < min(bound, 5 * least), part
    whole = math.sqrt(sum((array**2).sum() for array in gradients.values()))
    for name, array in gradients.items():
        # A shift before a BatchNorm has hardly any gradient, so that its own norm is no measure.
        error = np.linalg.norm(half_gradients[name] - array)
        assert error <= 0.15 * np.linalg.norm(array) + 1e-3 * whole, name


def test_the_scale_multiplies_gradients_and_leaves_the_outputs(tiny_recipe):
    symbol, shapes = built(tiny_recipe, EMULATED)
    given = parameters(symbol, shapes)
    outputs, gradients = stepped(symbol, shapes, given, 1)
    scaled_outputs, scaled = stepped(symbol, shapes, given, 4096)
    for name, array in outputs.items():
        np.testing.assert_array_equal(scaled_outputs[name], array)
    np.testing.assert_array_equal(scaled["fc7_weight"], gradients["fc7_weight"])
    # What is too small for float16 at scale 1 is there at a larger one.
    assert (scaled["conv0_weight"] != 0).mean() >= (gradients["conv0_weight"] != 0).mean()
    _, overflowing = stepped(symbol, shapes, given, 2**24)
    assert not np.isfinite(overflowing["conv0_weight"]).all()
    assert np.isfinite(overflowing["fc7_weight"]).all()


def test_an_emulated_dense_layer_rounds_operands_and_result():
    values = np.random.default_rng(2)
    data, weight = mx.sym.var("data"), mx.sym.var("layer_weight")
    net = mx.sym.FullyConnected(data, weight, num_hidden=3, no_bias=True, name="layer")
    symbol = precision.as_half(mx.sym.MakeLoss(net, name="loss"), ["data"], emulated=True)
    x, w = (values.normal(size=shape).astype(np.float32) for shape in ((4, 50), (3, 50)))
    outputs = symbol.eval(
        data=mx.nd.array(x), layer_weight=mx.nd.array(w, dtype=np.float16), loss_scale=mx.nd.ones((4, 3))
    )
    exact = x.astype(np.float16).astype(float) @ w.astype(np.float16).astype(float).T
    np.testing.assert_allclose(outputs[0].asnumpy(), exact, rtol=2**-11, atol=1e-5)
    np.testing.assert_array_equal(outputs[0].asnumpy(), outputs[0].asnumpy().astype(np.float16))


def test_a_memory_plan_of_the_float16_graph_changes_no_gradient(tiny_recipe):
    symbol, shapes = built(tiny_recipe, EMULATED, batch=2)
    plan = memonger.plan(symbol, shapes, mx.cpu())
    assert plan.after_megabytes < plan.before_megabytes
    given = parameters(symbol, shapes)
    for found, expected in zip(stepped(plan.symbol, shapes, given), stepped(symbol, shapes, given)):
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_float16_graph_itself_binds_where_it_cannot_run(tiny_recipe):
    symbol, shapes = built(tiny_recipe, "train.precision=float16", *STUDENT)
    assert math.isfinite(memonger.planned_megabytes(symbol, shapes, mx.cpu()))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2500)), max_size=12))
@example([(True, 1999)])
@example([(True, 2000)])
@example([(True, 1), (False, 1), (True, 1999), (True, 1)])
def test_the_dynamic_scale_halves_and_doubles(runs):
    scale = precision.LossScale("dynamic")
    expected, good = 2.0**16, 0
    for finite, count in runs:
        for _ in range(count if finite else min(count, 3)):
            scale.step(finite)
            good = good + 1 if finite else 0
            if not finite:
                expected /= 2
            elif good % 2000 == 0:
                expected = min(expected * 2, 2.0**24)
            if not finite and scale.streak <= -20:
                return
        again = precision.LossScale("dynamic", scale.saved())
        assert scale.value == again.value == expected
        assert scale.streak == again.streak


def test_a_fixed_scale_stays_and_gives_up_like_the_dynamic_one():
    for chosen in (1024.0, "dynamic"):
        scale = precision.LossScale(chosen)
        scale.step(True)
        for _ in range(31):
            scale.step(False)
        assert chosen in ("dynamic", scale.value)
        with pytest.raises(LatseError, match="not finite"):
            scale.step(False)


def test_another_scale_than_before_is_the_one_that_counts():
    fixed = precision.LossScale(1024.0)
    fixed.step(False)
    assert precision.LossScale(256.0, fixed.saved()).value == 256
    dynamic = precision.LossScale("dynamic", fixed.saved())
    assert (dynamic.value, dynamic.streak) == (1024, -1)
    dynamic.step(False)
    assert dynamic.value == 512


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 250, 449])
def test_one_number_among_many_arrays_is_found(wrong, place):
    arrays = [mx.nd.ones((2, 3), dtype=kind) for kind in ("float16", "float32") for _ in range(225)]
    assert precision.all_finite(arrays)
    arrays[place][1, 2] = wrong
    assert not precision.all_finite(arrays)


def learner(recipe, *overrides, devices=1, **named):
    """Return a learner of the tiny network, and what it is fed."""
    chosen = recipe(
        "encoder.dropout=0.0", "margin.s=16", "margin.a=0.88", f"train.batch_size={BATCH}", *overrides
    )
    training = Training.of(chosen, CLASSES, [mx.cpu(number) for number in range(devices)])
    fed = inputs(training.graph.shapes)
    return learners.create(training, **named), {
        name: array for name, array in fed.items() if name != "loss_scale"
    }


@pytest.mark.parametrize(
    ("network", "count"), [("teacher", 5), pytest.param("student", 2, marks=pytest.mark.slow)]
)
def test_training_follows_float32(tiny_recipe, network, count):
    losses = []
    for further in ((), (EMULATED, "train.loss_scale=256")):
        made, fed = learner(tiny_recipe, *NETWORKS[network], *further)
        losses.append(np.array([made.step(fed, number)["loss"].mean() for number in range(count)]))
    single, half = losses
    assert single[-1] < 0.7 * single[0]
    np.testing.assert_allclose(half[0], single[0], rtol=2e-3)
    assert (abs(half - single) < 0.03 * single[0]).all()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_whose_gradients_overflow_is_left_out(tiny_recipe, small_encoder, devices):
    settings = f"encoder.name={small_encoder}", "schedule.mode=linear", "train.iterations=100"
    made, fed = learner(tiny_recipe, EMULATED, *settings, devices=devices)
    before = {name: array.asnumpy() for name, array in made.capture(0).arg_params.items()}
    made._scale.value = 2.0**24
    values = made.step(fed, 0)
    assert (values["skipped"], values["loss_scale"]) == (1, 2**24)
    assert np.isfinite(values["loss"]).all()
    captured = made.capture(1)
    for name, array in before.items():
        np.testing.assert_array_equal(captured.arg_params[name].asnumpy(), array)
        assert not captured.momentum.get(name, mx.nd.zeros(1)).asnumpy().any()
    assert captured.scaling["value"].asscalar() == 2**23
    made._scale.value = 16.0
    values = made.step(fed, 1)
    assert (values["skipped"], values["loss_scale"]) == (0, 16)
    # A step left out counts: the rate is that of the second iteration.
    other, _ = learner(tiny_recipe, *settings, devices=devices)
    for number in range(2):
        other.step(fed, number)
    assert made.learning_rate == other.learning_rate < 0.01
    after = made.capture(2).arg_params
    assert any((after[name].asnumpy() != array).any() for name, array in before.items())


def test_parameters_are_kept_and_begun_with_in_float32(tiny_recipe):
    single, _ = learner(tiny_recipe)
    drawn = single.capture(0).arg_params
    half, fed = learner(tiny_recipe, EMULATED, "train.loss_scale=16")
    for name, array in half.capture(0).arg_params.items():
        np.testing.assert_array_equal(array.asnumpy(), drawn[name].asnumpy(), err_msg=name)
    begin = RunState(0, {name: array * 1.001 for name, array in drawn.items()})
    begun, _ = learner(tiny_recipe, EMULATED, "train.loss_scale=16", begin=begin)
    for name, array in begun.capture(0).arg_params.items():
        np.testing.assert_array_equal(array.asnumpy(), begin.arg_params[name].asnumpy(), err_msg=name)
    half.step(fed, 0)
    moved = half.capture(1)
    weight = moved.arg_params["stage1_unit1_conv1_weight"].asnumpy()
    assert weight.dtype == np.float32
    assert (weight != weight.astype(np.float16)).any()
    # The graph has what float16 makes of it.
    bound = half._module._exec_group.execs[0].arg_dict["stage1_unit1_conv1_weight"].asnumpy()
    assert bound.dtype == np.float16
    np.testing.assert_array_equal(bound, weight.astype(np.float16))


def test_one_step_moves_the_float32_parameters_by_the_rule(tiny_recipe, small_encoder):
    made, fed = learner(tiny_recipe, f"encoder.name={small_encoder}", EMULATED, "train.loss_scale=16")
    name = "conv0_weight"
    weight, momentum = made.capture(0).arg_params[name].asnumpy().astype(float), 0.0
    for number in range(3):
        made.step(fed, number)
        gradient = made._module._exec_group.execs[0].grad_dict[name].asnumpy().astype(float) / 16 / BATCH
        momentum = 0.9 * momentum - 0.01 * (gradient + 5e-4 * weight)
        weight = weight + momentum
        found = made.capture(number + 1).arg_params[name].asnumpy()
        np.testing.assert_allclose(found, weight, rtol=1e-5, atol=1e-7)
        weight = found.astype(float)


class Crash(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(scope="module", params=[(1, 0.9), (2, 0.9), (1, 0.0)], ids=str)
def train(people, tiny_recipe, quick_student, tmp_path_factory, request):
    """Train in a folder, with a scale that goes up and down within few steps; `unbroken` is such a folder."""
    devices, momentum = request.param
    recipe = tiny_recipe(EMULATED, "decoder.enabled=true", f"train.momentum={momentum}")
    symbol = precision.as_half(quick_student, ("data", "softmax_label", "keep", "mean_face"), emulated=True)
    graph = TrainingGraph(symbol, traced(recipe, CLASSES, recipe.train.batch_size).shapes)
    contexts = [mx.cpu(number) for number in range(devices)]
    training = Training(recipe, CLASSES, contexts, graph, inference(recipe), seed=3)

    def run(folder):
        folder.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(precision.LossScale, "GROWTH_INTERVAL", 1)
            patch.setattr(precision.LossScale, "START", 2.0**11)
            Trainer(training, Shard(people), folder, KeepAll()).run()
        return folder

    run.unbroken = run(tmp_path_factory.mktemp("unbroken"))
    return run


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_a_killed_run_resumes_to_the_same_bits(train, tmp_path, monkeypatch, run_contents, last):
    original = Trainer._step

    def dying(self, iteration, batch):
        if iteration == last:
            raise Crash
        return original(self, iteration, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(Crash):
            train(tmp_path / "broken")
    train(tmp_path / "broken")
    contents = run_contents(train.unbroken)
    assert run_contents(tmp_path / "broken") == contents
    assert {line["skipped"] for line in contents["metrics"]} == {0, 1}
    types = {array.dtype for array in state.load(train.unbroken).arg_params.values()}
    assert types == {np.float32}


def test_a_run_as_a_user_makes_it(tiny, people, tmp_path, run_metrics):
    out = tmp_path / "run"
    arguments = [
        "train",
        tiny,
        "--data",
        people,
        "--out",
        out,
        "--set",
        EMULATED,
        "--set",
        "train.log_every=1",
    ]
    assert main([*map(str, arguments), "--set", "train.iterations=4"]) == 0
    lines = run_metrics(out)
    skipped = [line for line in lines if line["skipped"]]
    assert skipped  # the first scale is higher than this network bears
    for line, after in zip(lines, lines[1:]):
        assert after["loss_scale"] == line["loss_scale"] * (0.5 if line["skipped"] else 1)
    log = (out / "train.log").read_text()
    assert log.count("a gradient is not finite at loss scale 65536") == 1
    assert log.count("skipped:") == len(skipped)
    for path in out.glob("*.params"):
        for name, array in mx.nd.load(str(path)).items():
            assert array.dtype == np.float32 or not name.startswith(("arg:", "aux:", "momentum:")), name


def test_what_the_processor_cannot_do_is_one_sentence(tiny, people, tmp_path, capsys):
    arguments = [
        "train",
        tiny,
        "--data",
        people,
        "--out",
        tmp_path / "out",
        "--set",
        "train.precision=float16",
    ]
    assert main(list(map(str, arguments))) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "train.precision is float16, which cpu(0) cannot compute in" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "precision=float8",
            "train.precision is float8, must be one of float32, float16, float16_emulated",
        ),
        ("precision=16", "train.precision is 16, must be one of float32, float16"),
        ("loss_scale=fast", "train.loss_scale is fast, must be dynamic or a power of two"),
        ("loss_scale=true", "train.loss_scale is true, must be dynamic or a power of two"),
        ("loss_scale=1000", "train.loss_scale is 1000.0, must be dynamic or a power of two"),
        ("loss_scale=0", "train.loss_scale is 0.0, must be"),
        ("loss_scale=-2", "train.loss_scale is -2.0, must be"),
        ("loss_scale=0.5", "train.loss_scale is 0.5, must be"),
        ("loss_scale=33554432", "train.loss_scale is 33554432.0, must be"),
        ("loss_scale=.nan", "train.loss_scale is nan, must be 0 or from 1.2e-38 to 3.4e+38"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tiny_recipe, override, sentence):
    with pytest.raises(LatseError) as caught:
        tiny_recipe(f"train.{override}")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["dynamic", "1", "1024", "65536.0", "1.6777216e+7"])
def test_a_right_scale_is_taken_whatever_the_base_has(tmp_path, value):
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    for first in ("dynamic", "8"):
        base.write_text(f"train: {{loss_scale: {first}}}")
        over.write_text(f"base: base.yaml\ntrain: {{loss_scale: {value}}}")
        expected = value if value == "dynamic" else float(value)
        assert recipes.load(over).train.loss_scale == expected
