"""The assembled graphs: outputs, the filter's effect on every gradient, the teacher's verdict."""

import mxnet as mx
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from latse.errors import LatseError
from latse.symbols import encoders, margins, networks
from latse.symbols.decoder import Decoder

CLASSES = 5
ENCODER = set(networks.trace(encoders.create("resnet_tiny")).list_arguments()) - {"data"}
# fc1's batch normalisation cancels the shift before it, and its own gamma is fixed.
CANCELLED = {"pre_fc1_bias", "fc1_gamma"}


def tiny():
    return encoders.create("resnet_tiny", dropout=0.0)


def linear_face():
    return margins.create("linearface", CLASSES, s=16)


def student(**options):
    return networks.Student(tiny(), linear_face(), Decoder(), **options)


def filtered(gate_losses):
    return networks.FilteredStudent(tiny(), linear_face(), gate_losses)


def inputs(keep=(1, 1, 1)):
    rng = np.random.default_rng(0)
    return {
        "data": rng.uniform(0, 255, (3, 3, 112, 112)),
        "softmax_label": np.array([1, 0, CLASSES - 1]),
        "keep": np.array(keep),
        "mean_face": rng.uniform(-1, 1, (3, 3, 112, 112)),
    }


def bind(symbol, given, constant=("data", "softmax_label", "keep", "mean_face")):
    """Bind with parameters that depend on their names alone, the same in all networks."""
    given = {name: value for name, value in given.items() if name in symbol.list_arguments()}
    wanted = {name: "null" if name in constant else "write" for name in symbol.list_arguments()}
    shapes = {name: value.shape for name, value in given.items()}
    executor = symbol.simple_bind(mx.cpu(), grad_req=wanted, **shapes)
    for name, array in {**executor.arg_dict, **executor.aux_dict}.items():
        rng = np.random.default_rng(sum(map(ord, name)))
        if name in given:
            array[:] = given[name]
        elif name.endswith("_weight"):
            array[:] = rng.normal(0, np.prod(array.shape[1:]) ** -0.5, array.shape)
        else:
            array[:] = rng.uniform(0.5, 1.0, array.shape)
    return executor


def gradients(network, given):
    executor = bind(networks.trace(network), given)
    executor.forward(is_train=True)
    executor.backward()
    return {name: array.asnumpy() for name, array in executor.grad_dict.items() if array is not None}


def outputs(network, given, training=False):
    symbol = networks.trace(network)
    values = bind(symbol, given).forward(is_train=training)
    return {name: value.asnumpy() for name, value in zip(symbol.list_outputs(), values)}


def test_the_outputs_are_told_by_their_names():
    expected = {
        networks.Classifier(tiny(), linear_face()): ["loss_output", "dloss_output"],
        filtered(True): ["loss_output", "dloss_output"],
        student(): ["loss_output", "dloss_output", "l1_output", "ssim_output"],
        networks.AutoEncoder(tiny(), Decoder()): ["fc1_output", "generated_output"],
    }
    for network, names in expected.items():
        symbol = networks.trace(network)
        assert symbol.list_outputs() == names
        assert set(network.inputs) <= set(symbol.list_arguments())
    shapes = {"data": (3, 3, 112, 112), "softmax_label": (3,), "keep": (3,), "mean_face": (3, 3, 112, 112)}
    assert networks.trace(student()).infer_shape(**shapes)[1] == [(3,)] * 4
    assert symbol.infer_shape(data=(3, 3, 112, 112))[1] == [(3, 512), (3, 3, 112, 112)]


def test_every_network_has_the_same_names_for_the_same_parameters():
    full = networks.trace(student())
    for network in (
        networks.Classifier(tiny(), linear_face()),
        networks.AutoEncoder(tiny(), Decoder()),
        filtered(False),
    ):
        assert set(networks.trace(network).list_inputs()) <= set(full.list_inputs())
    verdict = networks.trace(networks.Verdict((CLASSES, 512), 1e-5))
    assert set(verdict.list_inputs()) - {"embedding"} == {"softmax_label", "fc7_weight"}
    assert set(full.list_arguments()) - ENCODER - {"data", "softmax_label", "keep", "mean_face"} == {
        name for name in full.list_arguments() if name == "fc7_weight" or name.startswith("decoder_")
    }


def test_losses_are_those_of_embedding_and_generated_face():
    given = inputs()
    found = outputs(student(weights={"l1": 0.5, "similarity": 2.0}), given)
    made = outputs(networks.AutoEncoder(tiny(), Decoder()), given)
    faces, targets = made["generated_output"].astype(np.float64), given["mean_face"]
    centres = bind(networks.trace(student()), given).arg_dict["fc7_weight"].asnumpy().astype(np.float64)
    cosines = (made["fc1_output"] / np.linalg.norm(made["fc1_output"], axis=1, keepdims=True)) @ (
        centres / np.linalg.norm(centres, axis=1, keepdims=True)
    ).T
    logits, rows = 16 * cosines, [0, 1, 2]
    label = given["softmax_label"]
    logits[rows, label] = 16 * (0.88 - 0.88 * np.arccos(cosines[rows, label]))
    dloss = np.log(np.exp(logits).sum(axis=1)) - logits[rows, label]
    l1 = np.abs(faces - targets).reshape(3, -1).mean(axis=1)
    ssim = [
        structural_similarity(
            (a + 1) / 2,
            (b + 1) / 2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
        for a, b in zip(faces, targets)
    ]
    similarity = (1 - np.array(ssim)) / 2
    np.testing.assert_allclose(found["dloss_output"], dloss, rtol=1e-4)
    np.testing.assert_allclose(found["l1_output"], l1, rtol=1e-5)
    np.testing.assert_allclose(found["ssim_output"], ssim, atol=2e-5)
    np.testing.assert_allclose(found["loss_output"], dloss + 0.5 * l1 + 2 * similarity, rtol=1e-4)


OWN_LOSS = """
from latse.symbols.losses import GenerativeLoss


class Own(GenerativeLoss):
    def hybrid_forward(self, F, generated, target):
        return F.max(F.abs(generated - target), axis=0, exclude=True)

    def shown(self, F, loss):
        return 255 * loss
"""


def test_a_loss_of_ones_own_is_part_of_the_loss_and_shown(tmp_path):
    (tmp_path / "own.py").write_text(OWN_LOSS)
    own, given = f"{tmp_path}/own.py:Own", inputs()
    found = outputs(student(weights={"l1": 0.5, own: 3.0}), given)
    faces = outputs(networks.AutoEncoder(tiny(), Decoder()), given)["generated_output"]
    farthest = np.abs(faces - given["mean_face"]).reshape(3, -1).max(axis=1)
    np.testing.assert_allclose(found["own_output"], 255 * farthest, rtol=1e-5)
    expected = found["dloss_output"] + 0.5 * found["l1_output"] + 3 * farthest
    np.testing.assert_allclose(found["loss_output"], expected, rtol=1e-5)
    assert "ssim_output" not in found
    (tmp_path / "other.py").write_text(OWN_LOSS.replace("class Own", "class L1"))
    with pytest.raises(LatseError, match="^a generative loss needs another name than 'l1', which is taken$"):
        student(weights={"l1": 1.0, f"{tmp_path}/other.py:L1": 1.0})


def test_the_weights_of_the_losses_are_1_and_1():
    found = outputs(student(), inputs(), training=True)
    parts = found["dloss_output"] + found["l1_output"] + (1 - found["ssim_output"]) / 2
    np.testing.assert_allclose(found["loss_output"], parts, rtol=1e-6)


@pytest.mark.parametrize("gate_losses", [False, True])
def test_the_gate_does_not_alter_the_losses(gate_losses):
    kept = outputs(student(gate_losses=gate_losses), inputs(keep=(1, 1, 1)), training=True)
    refused = outputs(student(gate_losses=gate_losses), inputs(keep=(0, 0, 0)), training=True)
    for name, value in kept.items():
        np.testing.assert_array_equal(refused[name], value)


def test_refused_samples_teach_centres_and_decoder_but_not_the_encoder():
    everything = gradients(student(), inputs(keep=(1, 1, 1)))
    refused = gradients(student(), inputs(keep=(0, 0, 0)))
    assert everything.keys() > ENCODER
    for name, gradient in refused.items():
        if name in ENCODER:
            assert not gradient.any(), name
        else:
            np.testing.assert_allclose(
                gradient, everything[name], rtol=1e-5, atol=1e-7 * np.abs(gradient).max()
            )
            assert gradient.any(), name
    assert all(everything[name].any() for name in ENCODER - CANCELLED)


def test_gated_losses_teach_nothing():
    assert not any(
        gradient.any() for gradient in gradients(student(gate_losses=True), inputs((0, 0, 0))).values()
    )


def test_a_mixed_batch_is_a_batch_where_only_the_kept_sample_counts():
    gated = gradients(filtered(gate_losses=False), inputs(keep=(1, 0, 1)))
    counted = gradients(filtered(gate_losses=True), inputs(keep=(1, 0, 1)))
    everything = gradients(filtered(gate_losses=False), inputs(keep=(1, 1, 1)))
    for name in ENCODER:
        np.testing.assert_array_equal(gated[name], counted[name])
    np.testing.assert_array_equal(gated["fc7_weight"], everything["fc7_weight"])
    assert np.abs(gated["fc7_weight"] - counted["fc7_weight"]).max() > 1e-3
    assert np.abs(gated["conv0_weight"] - everything["conv0_weight"]).max() > 1e-3


def test_a_mixed_batch_gives_the_encoder_the_masked_gradient_of_the_embedding():
    """Batch normalisation couples the samples, so the mask must act on the embedding's gradient."""
    given = inputs(keep=(1, 0, 1))
    found = gradients(student(), given)
    encoding = bind(networks.trace(tiny()), given)
    embedding = encoding.forward(is_train=True)[0]
    behind = bind(losses_of_an_embedding(), {**given, "embedding": embedding.asnumpy()})
    behind.forward(is_train=True)
    behind.backward()
    masked = behind.grad_dict["embedding"]
    assert np.abs(masked.asnumpy()).max(axis=1).min() > 1e-3
    masked[1] = 0
    encoding.backward(masked)
    for name in ENCODER - CANCELLED:
        expected = encoding.grad_dict[name].asnumpy()
        assert np.linalg.norm(found[name] - expected) <= 1e-4 * np.linalg.norm(expected), name


def losses_of_an_embedding():
    network = student()
    embedding, label, target = map(mx.sym.var, ("embedding", "softmax_label", "mean_face"))
    faces = network.decoder(embedding)
    loss = network.margin(embedding, label) + sum(term(faces, target) for term in network.terms)
    return mx.sym.MakeLoss(loss)


def test_the_parts_of_the_loss_pass_no_gradient():
    alone = gradients(networks.Classifier(tiny(), linear_face()), inputs())
    symbol = networks.trace(networks.Classifier(tiny(), linear_face()))
    executor = bind(symbol["loss_output"], inputs())
    executor.forward(is_train=True)
    executor.backward()
    for name, gradient in alone.items():
        np.testing.assert_array_equal(gradient, executor.grad_dict[name].asnumpy())


def judged(rng):
    """Six embeddings with labels, and class centres of length 1."""
    centres = rng.normal(size=(CLASSES, 512))
    return {
        "embedding": rng.normal(size=(6, 512)),
        "softmax_label": np.arange(6) % CLASSES,
        "fc7_weight": centres / np.linalg.norm(centres, axis=1, keepdims=True),
    }


def test_the_verdict_is_the_rank_of_the_label():
    rng = np.random.default_rng(3)
    given = judged(rng)
    executor = bind(networks.trace(networks.Verdict((CLASSES, 512), 0.05)), given, [*given])
    cosines = given["embedding"] / np.linalg.norm(given["embedding"], axis=1, keepdims=True)
    cosines = cosines @ given["fc7_weight"].T
    rank, least, most, length = (output.asnumpy() for output in executor.forward(is_train=False))
    np.testing.assert_allclose(length, np.linalg.norm(given["embedding"], axis=1), rtol=1e-5)
    for row, label in enumerate(given["softmax_label"]):
        ahead = np.delete(cosines[row], label) - cosines[row, label]
        assert [rank[row], least[row], most[row]] == [(ahead > by).sum() for by in (0, 0.05, -0.05)]
    assert (least < most).any() and len(set(rank)) > 1


def test_the_likeliest_is_the_largest_cosine_but_for_the_label():
    rng = np.random.default_rng(3)
    given = judged(rng)
    executor = bind(networks.trace(networks.Likeliest((CLASSES, 512))), given, [*given])
    cosines = given["embedding"] / np.linalg.norm(given["embedding"], axis=1, keepdims=True)
    cosines = cosines @ given["fc7_weight"].T
    own, best, other = (output.asnumpy() for output in executor.forward(is_train=False))
    for row, label in enumerate(given["softmax_label"]):
        rest = {person: cosine for person, cosine in enumerate(cosines[row]) if person != label}
        assert other[row] == max(rest, key=rest.get)
        np.testing.assert_allclose([own[row], best[row]], [cosines[row, label], rest[other[row]]], atol=1e-6)


def test_biases_and_shifts_are_exempt_from_weight_decay():
    attributes = networks.trace(student()).attr_dict()
    parameters = [name for name in networks.trace(student()).list_arguments() if "_" in name]
    multipliers = {
        name: float(attributes[name].get("__wd_mult__", 1)) for name in parameters if name in attributes
    }
    exempt = {name for name, multiplier in multipliers.items() if multiplier == 0}
    assert exempt == {name for name in parameters if name.endswith(("_bias", "_beta"))}
    assert {multiplier for name, multiplier in multipliers.items() if name not in exempt} == {1.0}
    assert {"pre_fc1_bias", "bn0_beta", "decoder_bn0_beta", "decoder_conv0_bias"} <= exempt


def test_the_slopes_and_gammas_start_as_insightfaces_do():
    symbol = networks.trace(student())
    module = mx.mod.Module(symbol, data_names=networks.Student.inputs, label_names=None)
    module.bind([(name, value.shape) for name, value in inputs().items()])
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    args, aux = module.get_params()
    assert {float(value) for value in args["relu0_gamma"].asnumpy().ravel()} == {0.25}
    assert {float(value) for value in args["bn0_gamma"].asnumpy()} == {1.0}
    assert {float(value) for value in aux["bn0_running_var"].asnumpy()} == {1.0}
    assert 0.005 < args["fc7_weight"].asnumpy().std() < 0.02
