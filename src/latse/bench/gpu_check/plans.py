"""What a memory plan does: the step stays the same, statistics move once, and memory is what was planned."""

from __future__ import annotations

from typing import Iterator

import mxnet as mx
from tqdm import tqdm

from latse.bench.gpu_check.numbers import compared
from latse.bench.gpu_check.outcome import row
from latse.bench.gpu_check.setting import Setting
from latse.bench.gpu_check.steps import SEED, inputs, learner, one_step, training
from latse.bench.protocol import resident
from latse.child import in_child
from latse.errors import LatseError, is_short_of_memory
from latse.goals import Goal
from latse.graph.nodes import Graph
from latse.paper.dry_run import MEBIBYTE, dry_run
from latse.plan import memonger
from latse.plan.plan_graph import MARK
from latse.train.training import Training

STEPS = 3  # of a training that is weighed: the last ones allocate nothing new
# What a device may hold beside activations, parameters, gradients and momenta: what cuDNN works in, its
# kernels, and the batch. On the CPU it holds the parameters once more.
MOST_RATIO, LEAST_RATIO = 1.5, 0.5
BESIDE = {"gpu": 2048.0, "cpu": 128.0}  # MiB
LEAST_SAVED = 0.5  # of what the plan says that it saves


def statistics(setting: Setting) -> Iterator[Goal]:
    """Take one step with a memory plan and one without."""
    plain = training([setting.device], setting.sizes, setting.sizes.middle)
    plan = memonger.plan(*plain.device_graph, setting.device)
    title = f"{setting.sizes.middle}, planned against not"
    again = [node for node in Graph.read(plan.symbol).nodes if node.op == "BatchNorm" and MARK in node.attrs]
    yield row(f"{title}: batch normalisations that are computed again", len(again), at_least=1)
    yield from compared(title, one_step(plain.with_symbol(plan.symbol)), one_step(plain))


def memory(setting: Setting) -> Iterator[Goal | str]:
    """Weigh the training of networks with and without a memory plan, each in a process of its own."""
    sizes = setting.sizes
    for name in tqdm(sizes.weighed, "memory", unit="network"):
        plain, planned, symbol = in_child(f"the plan of {name}", foreseen, setting, name)
        used = {}
        for title, foresaw, graph in ((name, plain, None), (f"{name}, planned", planned, symbol)):
            used[title] = in_child(f"the training of {title}", weighed, setting, name, graph)
            if used[title] is None:
                yield f"{title}: {foresaw:.0f} MiB are foreseen, and do not fit into {setting.device}"
                continue
            yield row(f"{title}: memory foreseen", foresaw, "MiB")
            most = MOST_RATIO * foresaw + BESIDE[setting.device.device_type]
            yield row(f"{title}: memory used", used[title], "MiB", at_most=round(most))
            yield row(f"{title}: used over foreseen", used[title] / foresaw, at_least=LEAST_RATIO)
        if used[f"{name}, planned"] is None:
            raise LatseError(f"{name} does not fit into {setting.device} with a memory plan")
        if used[name] is not None:
            saved = (used[name] - used[f"{name}, planned"]) / (plain - planned)
            yield row(f"{name}: memory saved over that foreseen", saved, at_least=LEAST_SAVED)


def foreseen(setting: Setting, name: str) -> tuple[float, float, str]:
    """Return the MiB of a training without and with its memory plan, and the planned graph as JSON."""
    run = dry_run(_weighed_training(setting, name), None)
    return run.unplanned_memory, run.planned_memory, run.plan.symbol.tojson()


def weighed(setting: Setting, name: str, graph: str | None) -> float | None:
    """Return the most MiB that a training takes on the first device; None if it does not fit.

    On a GPU MXNet gives nothing back to it, so that what is taken at the end is the most.
    """
    run = _weighed_training(setting, name)
    run = run.with_symbol(mx.sym.load_json(graph)) if graph else run
    before = _taken(setting)
    try:
        made, fed = learner(run), inputs(run)
        for _ in range(STEPS):
            made.step(fed, SEED)
        mx.nd.waitall()
    except (mx.MXNetError, RuntimeError) as error:
        if is_short_of_memory(error):
            return None
        raise
    return _taken(setting) - before


def _weighed_training(setting: Setting, name: str) -> Training:
    sizes = setting.sizes._replace(classes=setting.sizes.weighed_classes)
    return training([setting.device], sizes, name, images=sizes.weighed_images)


def _taken(setting: Setting) -> float:
    """Return the MiB of the device that are taken; of the CPU the most that this process has had."""
    if not setting.is_gpu:
        return resident("VmHWM")
    free, total = mx.context.gpu_memory_info(setting.device.device_id)
    return (total - free) / MEBIBYTE
