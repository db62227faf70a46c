"""The paper's largest student on MS1M-RetinaFace's number of people: one real training step."""

import mxnet as mx
import numpy as np
import pytest

from latse import memonger
from latse.symbols import encoder, margins, networks
from latse.symbols.decoder import Decoder

BATCH, CLASSES = 4, 85742


@pytest.mark.slow
def test_the_student_of_resnet_100_plans_and_takes_a_training_step():
    mx.random.seed(0)
    rng = np.random.default_rng(0)
    batch = {
        "data": rng.integers(0, 256, (BATCH, 3, 112, 112)),
        "softmax_label": np.array([0, 1, 40000, CLASSES - 1]),
        "keep": np.array([1, 0, 1, 1]),
        "mean_face": rng.uniform(-1, 1, (BATCH, 3, 112, 112)),
    }
    shapes = {name: value.shape for name, value in batch.items()}
    network = networks.Student(encoder.create("resnet100"), margins.create("linearface", CLASSES), Decoder())
    plan = memonger.plan_in_subprocess(networks.trace(network).tojson(), shapes, mx.cpu())
    assert plan.after_megabytes < plan.before_megabytes

    module = mx.mod.Module(plan.symbol, data_names=list(batch), label_names=None)
    module.bind(list(shapes.items()))
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    module.init_optimizer(
        optimizer="sgd",
        optimizer_params={"learning_rate": 0.1, "momentum": 0.9, "wd": 5e-4, "rescale_grad": 1 / BATCH},
    )
    before = {name: array.asnumpy() for name, array in module.get_params()[0].items()}
    module.forward_backward(mx.io.DataBatch([mx.nd.array(value) for value in batch.values()]))
    loss = module.get_outputs()[0].asnumpy()
    module.update()
    after, aux = module.get_params()

    assert loss.shape == (BATCH,) and np.isfinite(loss).all() and (loss > 0).all()
    assert before["fc7_weight"].shape == (CLASSES, 512)
    assert all(np.isfinite(array.asnumpy()).all() for array in [*after.values(), *aux.values()])
    frozen = {name for name, array in before.items() if (after[name].asnumpy() == array).all()}
    assert frozen <= {"fc1_gamma"}
