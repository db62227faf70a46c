import argparse
import json
import pickle
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from latse.cli import main
from latse.data.pairs.pairs import read_pairs
from latse.errors import LatseError
from latse.eval import candidates as models
from latse.eval.model_arguments import add_model_arguments, split
from latse.files import digest
from latse.models.feeding import Feeding
from latse.models.onnx_model import CENTRED

RNG = np.random.default_rng(0)
POOLED = RNG.normal(size=(147, 8)).astype(np.float32)  # of 16×16 means of 112×112 pixels


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (5, 3, 112, 112), np.uint8)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def stock_forward(prefix, number, images):
    """fc1 by MXNet's own loader and a Module in its first pass."""
    symbol, args, aux = mx.model.load_checkpoint(str(prefix), number)
    module = mx.mod.Module(symbol.get_internals()["fc1_output"], label_names=None)
    module.bind([("data", images.shape)], for_training=False)
    module.set_params(args, aux, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
    return module.get_outputs()[0].asnumpy().astype(np.float64)


# --- titles


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("out/orl/student/model,0", "student"),
        ("out/orl/student/model", "student"),
        ("teacher=out/orl/student/model,7", "teacher"),
        ("my model=zoo/r50.onnx", "my model"),
        ("zoo/r50.onnx", "r50"),
        ("features/arc-{set}.npy", "arc"),
        ("features/arc.npy", "arc"),
        ("./m2=0.5/model,0", "m2=0.5"),
        ("study/m2=0.5/seed-0/model,0", "seed-0"),
        ("a=study/m2=0.5/model,0", "a"),
        ("pixels", "pixels"),
        ("grey=pixels", "grey"),
        ("dlib", "dlib"),
    ],
)
def test_titles(text, title):
    assert split(text)[0] == title


@given(st.text(st.characters(blacklist_characters="=/", blacklist_categories=["Cs"]), min_size=1))
def test_any_title_without_a_slash_is_kept(title):
    assert split(f"{title}=a=b/model,3") == (title, "a=b/model,3", None)


@pytest.mark.parametrize("text", ["=pixels", "title=", "student=out/model,x", "=", ""])
def test_what_is_no_model_is_refused(text):
    with pytest.raises(LatseError, match="is no"):
        models.open_model(text)


def test_models_keep_their_order_and_need_titles_of_their_own(tmp_path, save_network):
    save_network(tmp_path / "model")
    text = f"{tmp_path}/model,0"
    opened = models.open_models(parsed("--model", "pixels", f"b={text}", "--model", f"a={text}"))
    assert [model.title for model in opened] == ["pixels", "b", "a"]
    with pytest.raises(LatseError, match=f"2 models have the title '{tmp_path.name}'"):
        models.open_models(parsed("--model", text, "pixels", text))


# --- networks of MXNet


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_an_embedding_is_that_of_the_image_and_its_mirror(tmp_path, save_network, images, batch_size):
    save_network(tmp_path / "model")
    found = models.open_model(f"{tmp_path}/model", batch_size=batch_size).embed(images, "five")
    expected = sum(stock_forward(tmp_path / "model", 0, seen) for seen in (images, images[..., ::-1]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_repeated_image_has_the_same_embedding_to_the_bit(tmp_path, save_network, images):
    save_network(tmp_path / "model")
    found = models.open_model(f"{tmp_path}/model").embed(images[[0, 3, 0, 1, 3]], "repeats")
    np.testing.assert_array_equal(found[[0, 1]], found[[2, 4]])


def mobile_symbol(size=112):
    """Depthwise separable, PReLU, a global depthwise convolution, its loss on top: MobileFaceNet in small."""
    net = (mx.sym.var("data") - 127.5) * 0.0078125
    for stage, (group, channels) in enumerate(((1, 8), (8, 16))):
        net = mx.sym.Convolution(
            net,
            num_filter=8,
            num_group=group,
            kernel=(3, 3),
            stride=(4, 4),
            pad=(1, 1),
            no_bias=True,
            name=f"dw{stage}",
        )
        net = mx.sym.BatchNorm(net, fix_gamma=False, name=f"dw{stage}_bn")
        net = mx.sym.LeakyReLU(net, act_type="prelu", name=f"dw{stage}_relu")
        net = mx.sym.Convolution(net, num_filter=channels, kernel=(1, 1), name=f"pw{stage}")
    net = mx.sym.Convolution(
        net, num_filter=16, num_group=16, kernel=(size // 16,) * 2, no_bias=True, name="gdc"
    )
    net = mx.sym.FullyConnected(net, num_hidden=32, no_bias=True, name="pre_fc1")
    net = mx.sym.BatchNorm(net, fix_gamma=True, eps=2e-5, name="fc1")
    fc7 = mx.sym.FullyConnected(mx.sym.L2Normalization(net), num_hidden=6, no_bias=True, name="fc7")
    return mx.sym.SoftmaxOutput(fc7, name="softmax")


def save_mobile(prefix, size=112):
    symbol = mobile_symbol(size)
    args, _, aux = symbol.infer_shape(data=(1, 3, size, size))
    rng = np.random.default_rng(2)

    def arrays(names, shapes):
        return {
            name: mx.nd.array(rng.uniform(0.2, 1, shape) * rng.choice([-1, 1], shape) ** ("var" not in name))
            for name, shape in zip(names, shapes)
            if name not in ("data", "softmax_label")
        }

    parameters = arrays(symbol.list_arguments(), args), arrays(symbol.list_auxiliary_states(), aux)
    mx.model.save_checkpoint(str(prefix), 4, symbol, *parameters)


def test_any_symbol_with_fc1_output_fits(tmp_path, images):
    """Pass after pass: a plain Module of such a symbol fails at its second."""
    save_mobile(tmp_path / "mobile")
    found = models.open_model(f"{tmp_path}/mobile,4", batch_size=2).embed(images, "five")
    expected = sum(stock_forward(tmp_path / "mobile", 4, seen) for seen in (images, images[..., ::-1]))
    assert found.shape == (5, 32)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_network_of_larger_images_is_refused_by_its_file(tmp_path, images):
    save_mobile(tmp_path / "mobile", size=160)
    with pytest.raises(LatseError, match=r"mobile-0004\.params.*\(3, 112, 112\)"):
        models.open_model(f"{tmp_path}/mobile,4").embed(images, "five")


def test_the_origin_tells_the_file_and_the_run(tmp_path, save_network):
    save_network(tmp_path / "model")
    text = f"{tmp_path}/model,0"
    bare = models.open_model(text).origin
    assert set(bare) == {"source", "digest"}
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "r", "seed": 3, "settings": {"a": 1}, "x": 0}))
    assert models.open_model(f"t={text}").origin == {**bare, "recipe": "r", "seed": 3, "settings": {"a": 1}}
    save_network(tmp_path / "model", seed=1)
    assert models.open_model(text).origin["digest"] != bare["digest"]
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(LatseError, match=r"run\.json: it is \[\], must be an object with keys"):
        models.open_model(text)


# --- not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_by_its_image(images, value):
    def feature(seen):
        rows = seen.reshape(len(seen), -1)[:, :4].astype(np.float32)
        rows[seen.reshape(len(seen), -1).max(axis=1) == 0, 2] = value
        return rows

    seen = np.concatenate([images[:2], images[:2], 0 * images[:1], images])
    model = models.FlipSummed("mine", {}, feature)
    with pytest.raises(LatseError, match="mine on ten: the embedding of image 4 is not finite"):
        model.embed(seen, "ten")


# --- feature files


def test_features_of_a_file_are_used_as_they_are(tmp_path, images):
    for name, kind in (("lfw", np.float16), ("orl", np.float32), ("far", np.float64)):
        features = np.asfortranarray(RNG.normal(size=(5, 7)).astype(kind))
        np.save(tmp_path / f"arc-{name}.npy", features)
        found = models.open_model(f"{tmp_path}/arc-{{set}}.npy").embed(images, name)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, features)
        one = models.open_model(f"{tmp_path}/arc-{name}.npy").embed(images, "anything")
        np.testing.assert_array_equal(one, features)


@pytest.mark.parametrize(
    ("what", "title"),
    [
        ("a/r50/{set}.npy", "r50"),
        ("a/r50/{set}/{set}.npy", "r50"),
        ("a/r50/{set}/far.npy", "far"),
        ("a/{set}-far.npy", "far"),
        ("far{set}.npy", "far"),
        ("{set}.npy", "here"),
    ],
)
def test_features_are_not_titled_by_their_set(tmp_path, monkeypatch, what, title):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert models.open_model(what).title == title


def test_the_origin_of_features_tells_what_was_read(tmp_path, images):
    for name in ("lfw", "orl"):
        np.save(tmp_path / f"{name}.npy", RNG.normal(size=(5, 2)))
    one, many = (models.open_model(f"{tmp_path}/{name}.npy") for name in ("lfw", "{set}"))
    one.embed(images, "x")
    assert one.origin == {"source": f"{tmp_path}/lfw.npy", "digest": digest(tmp_path / "lfw.npy")}
    digests = {}
    for name in ("lfw", "orl"):
        many.embed(images, name)
        digests[name] = digest(tmp_path / f"{name}.npy")
        assert many.origin == {"source": f"{tmp_path}/{{set}}.npy", "digest": digests}


def test_rows_of_features_are_not_read_before_they_are_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.full((5, 7), np.nan, np.float32))
    rows = models.open_model(str(tmp_path / "x.npy")).rows(5, "five")
    assert isinstance(rows, np.memmap) and rows.dtype == np.float32


def with_nan():
    features = np.ones((5, 7), np.float32)
    features[3, 6] = np.nan
    return features


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.ones((4, 7)), "holds 4 features, but five has 5 images"),
        (np.ones((5, 7), int), r"int64 of shape \(5, 7\) instead of floats"),
        (np.ones(5), r"of shape \(5,\) instead of floats of shape \(n, d\)"),
        (np.ones((5, 7), complex), "complex128"),
        (np.full((5, 2), None), "is damaged"),
        (with_nan(), "for five: the embedding of image 3 is not finite"),
        (np.eye(5)[:, :4], "for five: the embedding of image 4 is zero, which has no direction"),
    ],
)
def test_other_features_are_refused(tmp_path, images, content, sentence):
    np.save(tmp_path / "x-five.npy", content, allow_pickle=True)
    with pytest.raises(LatseError, match=rf"x-five\.npy.*{sentence}"):
        models.open_model(f"{tmp_path}/x-{{set}}.npy").embed(images, "five")


def test_damaged_features_are_one_sentence(tmp_path, images):
    path = tmp_path / "x.npy"
    path.touch()
    model = models.open_model(str(path))
    path.unlink()
    with pytest.raises(LatseError, match="cannot read"):
        model.embed(images, "five")
    np.save(path, np.ones((5, 7)))
    whole = path.read_bytes()
    claim = whole.replace(b"(5, 7), }" + b" " * 8, b"(99999999999, 7),")
    assert claim != whole
    for content in (b"", whole[:20], whole[:-1], b"PK\x03\x04", pickle.dumps([1]), claim):
        path.write_bytes(content)
        with pytest.raises(LatseError, match=r"x\.npy is damaged"):
            model.embed(images, "five")


# --- ONNX


def save_onnx(path, batch="n", side=112, kind=TensorProto.FLOAT, outputs=("out",), begin=()):
    """Means of 16×16 pixels times a matrix; `begin` are nodes (operator, constant) before that."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes, constants, name = [], [numpy_helper.from_array(POOLED.astype(dtype), "w")], "data"
    for number, (operator, value) in enumerate(begin):
        inputs = [name]
        if value is not None:
            constants.append(numpy_helper.from_array(np.array(value, dtype), f"c{number}"))
            inputs.append(f"c{number}")
        name = f"begun{number}"
        nodes.append(helper.make_node(operator, inputs, [name]))
    nodes.append(helper.make_node("AveragePool", [name], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes += [helper.make_node("MatMul", ["flat", "w"], [output]) for output in outputs]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", kind, [batch, 3, side, side])],
        [helper.make_tensor_value_info(output, kind, ["n", 8]) for output in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def pooled_rows(images, centre, scale):
    pixels = (images.astype(np.float64) - centre) * scale
    means = pixels.reshape(len(images), 3, 7, 16, 7, 16).mean(axis=(3, 5)).reshape(len(images), -1)
    return means @ POOLED


@pytest.mark.parametrize("begin", [[], [("Identity", None)]])
def test_an_onnx_network_is_fed_what_pytorch_trained_it_with(tmp_path, images, begin):
    save_onnx(tmp_path / "net.onnx", begin=begin)
    model = models.open_model(f"{tmp_path}/net.onnx", batch_size=2)
    expected = pooled_rows(images, 127.5, 1 / 127.5) + pooled_rows(images[..., ::-1], 127.5, 1 / 127.5)
    found = model.embed(images, "five")
    assert model.title == "net"
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_an_exported_network_is_fed_pixels_whatever_it_begins_with(tmp_path, save_network, images):
    prefix, path = tmp_path / "model", tmp_path / "exported.onnx"
    save_network(prefix, decoder=False)
    assert main(["export", f"{prefix},0", "--onnx", str(path)]) == 0
    mxnet, exported = (models.open_model(text) for text in (f"{prefix},0", str(path)))
    np.testing.assert_allclose(exported.embed(images, "five"), mxnet.embed(images, "five"), atol=1e-3)
    save_onnx(path)
    assert models.open_model(str(path)).feature.feeding == CENTRED
    model = onnx.load(path)
    model.producer_name = "latse"
    onnx.save(model, path)
    assert models.open_model(str(path)).feature.feeding == Feeding()


@pytest.mark.parametrize(
    "options", [{"batch": 1}, {"batch": 3}, {"kind": TensorProto.FLOAT16}, {"side": "s"}]
)
def test_onnx_networks_of_other_batches_and_types(tmp_path, images, options):
    save_onnx(tmp_path / "net.onnx", **options)
    expected = pooled_rows(images, 127.5, 1 / 127.5) + pooled_rows(images[..., ::-1], 127.5, 1 / 127.5)
    found = models.open_model(f"{tmp_path}/net.onnx").embed(images, "five")
    np.testing.assert_allclose(found, expected, atol=4e-3 * np.abs(expected).max())


def test_of_several_onnx_outputs_fc1_is_taken(tmp_path, images):
    save_onnx(tmp_path / "one.onnx")
    save_onnx(tmp_path / "two.onnx", outputs=("other", "fc1_output"))
    one, two = (models.open_model(f"{tmp_path}/{name}.onnx").embed(images, "s") for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def save_mean(path, kind=TensorProto.FLOAT, shape=("n", 3, 112, 112), axis=0, inputs=1):
    """Means along an axis: what is no face network."""
    given = [helper.make_tensor_value_info(f"data{number}", kind, shape) for number in range(inputs)]
    node = helper.make_node("Sum", [value.name for value in given], ["sum"])
    mean = helper.make_node("ReduceMean", ["sum"], ["out"], axes=[axis], keepdims=1)
    graph = helper.make_graph([node, mean], "net", given, [helper.make_tensor_value_info("out", kind, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": ("n", 3, 160, 160)}, r"takes images of \(3, 160, 160\), not of \(3, 112, 112\)"),
        ({"shape": ("n", 112, 112, 3)}, r"takes images of \(112, 112, 3\), not of"),
        ({"shape": ("n", 37632)}, "must have one input, floats of shape"),
        ({"kind": TensorProto.DOUBLE}, "must have one input, floats of shape"),
        ({"inputs": 2}, "must have one input, floats of shape"),
        ({}, r"of 32 images has shape \(1, 3, 112, 112\) instead of one row for each"),
        ({"axis": 1}, r"of 32 images has shape \(32, 1, 112, 112\)"),
    ],
)
def test_onnx_networks_of_something_else_are_named(tmp_path, images, options, sentence):
    save_mean(tmp_path / "net.onnx", **options)
    with pytest.raises(LatseError, match=rf"net\.onnx.*{sentence}"):
        models.open_model(f"{tmp_path}/net.onnx").embed(images, "five")


def test_onnx_outputs_without_fc1_are_named(tmp_path):
    save_onnx(tmp_path / "net.onnx", outputs=("a", "b"))
    with pytest.raises(LatseError, match=r"net\.onnx must have one output, .*fc1_output, not: a, b"):
        models.open_model(f"{tmp_path}/net.onnx")


def test_damaged_onnx_files_are_one_sentence(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(LatseError, match=r"the ONNX file .*net\.onnx is missing"):
        models.open_model(str(path))
    save_onnx(path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no protobuf", whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(LatseError, match=r"net\.onnx holds no ONNX model"):
            models.open_model(str(path))


def test_a_batch_of_no_image_is_refused(tmp_path, images):
    save_onnx(tmp_path / "net.onnx")
    with pytest.raises(LatseError, match="the batch size is 0, must be 1 to 2147483647"):
        models.open_model(f"{tmp_path}/net.onnx", batch_size=0)
    with pytest.raises(LatseError, match="no image"):
        models.open_model(f"{tmp_path}/net.onnx").embed(images[:0], "none")


# --- extras that are not installed


@pytest.mark.parametrize(
    ("module", "what", "extra"),
    [("onnxruntime", "x.onnx", "onnx"), ("onnx", "x.onnx", "onnx"), ("dlib", "dlib", "baselines")],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, what, extra):
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LatseError, match=rf"{module} is not installed; pip install 'latse\[{extra}\]'"):
        models.open_model(what)


# --- all in one table


def test_all_kinds_in_one_table(tmp_path, save_network, pairs_file, shard_folder, capsys):
    """The same features give the same figures, whatever computed them."""
    save_network(tmp_path / "model")
    pairs = read_pairs(pairs_file)
    name = pairs_file.stem
    features = models.open_model(f"{tmp_path}/model,0").embed(pairs.images, name)
    np.save(tmp_path / f"same-{name}.npy", features)
    save_onnx(tmp_path / "net.onnx")
    report = tmp_path / "report.json"
    texts = ["pixels", "pca", "fisherfaces", f"m={tmp_path}/model,0", f"{tmp_path}/same-{{set}}.npy"]
    arguments = ["--train-data", shard_folder, "--pairs", pairs_file, "--json", report, "--samples", 10]
    given = ["eval", "--model", *texts, f"{tmp_path}/net.onnx", *arguments]
    assert main([str(argument) for argument in given]) == 0
    content = json.loads(report.read_text())
    titles = ["pixels", "pca", "fisherfaces", "m", "same", "net"]
    assert list(content["models"]) == titles
    results = content["sets"][name]["results"]
    assert list(results) == titles
    assert results["m"] == results["same"]
    assert content["models"]["pca"] == {"source": "pca", "train_data": str(shard_folder), "images": 24}
    printed = capsys.readouterr().out
    assert all(title in printed for title in titles)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (["pca"], "pca is fitted to training people: name their shard with --train-data"),
        (["fisherfaces", "--train-data", "nowhere"], "nowhere"),
        (["pixels", "pixels"], "2 models have the title 'pixels'"),
        (["none/model,0"], "none/model-0000.params is missing"),
        (["none.onnx"], "the ONNX file none.onnx is missing"),
        (["none.npy"], "the file of features none.npy is missing"),
        (["few.npy"], "few.npy holds 3 features, but people has 96 images"),
    ],
)
def test_bad_models_are_one_sentence_on_the_command_line(
    tmp_path, monkeypatch, pairs_file, capsys, what, sentence
):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.ones((3, 2)))
    arguments = ["eval", "--model", *what, "--pairs", str(pairs_file), "--json", "report.json"]
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("latse: ")
    assert sentence in error
    assert not (tmp_path / "report.json").exists()


def test_the_help_says_what_a_model_is(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("PREFIX,NUMBER", "FILE.onnx", "FILE-{set}.npy", *models.BASELINES))
