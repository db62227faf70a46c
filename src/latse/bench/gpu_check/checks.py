"""The checks of `latse check-gpu` by name. Without mxnet, as parsers need it."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple

from latse.arguments import later

# With TF32 a GPU rounds what it multiplies to 11 bits, and hides faults that are smaller than that.
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}
AS_IT_IS: Mapping[str, str] = {}


class Check(NamedTuple):
    """One check: its title; what takes a `Setting` and yields goals and remarks; and its environment."""

    title: str
    rows: Callable[[Any], Any]
    environment: Mapping[str, str] = EXACT


def _check(title: str, module: str, function: str, environment: Mapping[str, str] = EXACT) -> Check:
    return Check(title, later(f"latse.bench.gpu_check.{module}", function), environment)


CHECKS = {
    "embeddings": _check("Embeddings of every encoder, devices against CPU", "numbers", "embeddings"),
    "gradients": _check(
        "Losses, gradients and statistics of one step, device against CPU", "numbers", "gradients"
    ),
    "statistics": _check("One step with a memory plan against one without", "plans", "statistics"),
    "memory": _check("Memory that is foreseen against what is used", "plans", "memory", AS_IT_IS),
    "precision": _check("float16 against float32", "following", "precision"),
    "verdicts": _check(
        "Verdicts of a teacher, device against CPU, as MXNet rounds by itself", "verdicts", "rows", AS_IT_IS
    ),
    "kvstores": _check("All devices against one, with each KVStore", "following", "kvstores"),
    "resume": _check("A run that is killed and goes on", "resume", "rows"),
    "speed": _check("Images per second of training, as MXNet rounds by itself", "speed", "rows", AS_IT_IS),
}
