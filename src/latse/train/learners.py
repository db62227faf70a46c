"""Which learner a recipe asks for."""

from __future__ import annotations

from latse.arguments import ASYNCHRONOUS
from latse.cluster.alone import ALONE, Alone
from latse.recipe_keys import SINGLE
from latse.train.asynchronous_learner import AsynchronousLearner
from latse.train.learner import Learner
from latse.train.mixed_learner import MixedLearner
from latse.train.state import AFRESH, RunState
from latse.train.training import Training


def create(training: Training, begin: RunState = AFRESH, workers: Alone = ALONE) -> Learner:
    """Return what learns with the recipe's precision and KVStore; the arguments are those of `Learner`."""
    train = training.recipe.train
    if train.kvstore == ASYNCHRONOUS:
        return AsynchronousLearner(training, begin, workers)
    return (Learner if train.precision == SINGLE else MixedLearner)(training, begin, workers)
