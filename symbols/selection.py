"""Which samples a network learns from, seen in their own losses: the rivals of the teacher's filter (§2).

A strategy sees one network or two that learn from the same batches, and says how much each sample weighs in
the loss of each. It is part of the graph: with several devices each chooses among its share of the batch.
"""

from __future__ import annotations

from mxnet.gluon import nn

from latse.errors import LatseError, check_range
from latse.own_class import Registry, source
from latse.symbols.running import moved, running_parameter

__all__ = ["SELECTIONS", "Selection", "check", "create", "find", "over_kept", "parameters", "source"]

# What the least of a rounding may add to a number of samples: 0.9·10 is 9, whatever 1 - 0.1 is.
ROUNDING = 1e-9


class Selection(nn.HybridBlock):
    """The base of every strategy, which overrides `weights`.

    Inputs: label (N,), those named in `inputs`, then the loss of each sample (N,) of the first network and of
    the second, then, if the strategy `has_scores`, the scores (N, K) of each network. Outputs: the weight of
    each sample (N,) in the loss of each network, which is the mean of weight times loss over the batch; then
    a term (1,) of every loss. No gradient passes through the weights.

    Attributes
    ----------
    networks : int
        How many networks learn, 1 or 2. A checkpoint holds the first.
    has_scores : bool
        Whether it is given the scores: the cosines without margin of the embeddings with the class centres.
    inputs : tuple of str
        Names of further inputs. There is one: `iteration` (N,), how many iterations are done.
    """

    networks = 1
    has_scores = False
    inputs: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__(prefix="selection_")

    def weights(self, F, losses, scores, label, *inputs, **parameters):
        """Return the weights of the samples, a list of an array (N,) for each network.

        `losses` and `scores` are lists with an array for each network, cut off from the gradient; the further
        inputs and the parameters of the strategy follow.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its weights are")

    def term(self, F, losses, *inputs, **parameters):
        """Return a term (1,) of every loss, by which a strategy may remember (`latse.symbols.running`)."""
        return F.zeros((1,))

    def hybrid_forward(self, F, label, *arrays, **parameters):
        """Return the outputs."""
        inputs, seen = arrays[: len(self.inputs)], [F.BlockGrad(one) for one in arrays[len(self.inputs) :]]
        losses, scores = seen[: self.networks], seen[self.networks :]
        weights = self.weights(F, losses, scores, label, *inputs, **parameters)
        return (*map(F.BlockGrad, weights), self.term(F, losses, *inputs, **parameters))


class CoTeaching(Selection):
    """Each of two networks learns from the small losses of the other (Han et al. 2018, Algorithm 1).

    What counts is the mean over the samples of least loss: a share 1 - noise_rate·min(iteration/ramp, 1) of
    the batch, rounded down, at least one. `noise_rate` is τ, in [0, 1), default 0.2. `ramp` is T_k in
    iterations, at least 0, default 1200: as in the paper 10 of 200 epochs, of 24,000 iterations.
    """

    networks = 2
    inputs = ("iteration",)

    def __init__(self, noise_rate: float = 0.2, ramp: int = 1200) -> None:
        super().__init__()
        if not 0 <= noise_rate < 1:
            raise LatseError(f"noise_rate is {noise_rate}, must be in [0, 1)")
        check_range("ramp", ramp, 0)
        self._noise_rate, self._ramp = noise_rate, ramp

    def weights(self, F, losses, scores, label, iteration):
        """Return the weights of the samples in the loss of each network."""
        mine, other = (self._small(F, loss, iteration) for loss in losses)
        return [over_kept(F, weight) for weight in self._exchanged(other, mine)]

    def _exchanged(self, other, mine):
        """Return the weights in both networks of what the second and the first find clean, 1 or 0 each."""
        return other, mine

    def _small(self, F, loss, iteration):
        """Return 1 for the samples (N,) of least loss, else 0."""
        done = F.cast(iteration, dtype="float64")
        ramp = F.minimum(done / self._ramp, 1) if self._ramp else F.ones_like(done)
        share = F.broadcast_mul(1 - self._noise_rate * ramp, F.cast(size(F, loss), dtype="float64"))
        count = F.maximum(F.floor(share + ROUNDING), 1)
        rank = F.argsort(F.argsort(loss, axis=0), axis=0)
        return rank < F.cast(count, dtype="float32")


class CoMining(CoTeaching):
    """Co-teaching where samples that both networks find clean weigh more (Wang et al. 2019, Co-Mining).

    `noise_rate` and `ramp` are those of Co-teaching. `weight`, at least 1, default 2, is what a sample counts
    that both networks have among their small losses, over one that only the other network has.
    """

    def __init__(self, noise_rate: float = 0.2, ramp: int = 1200, weight: float = 2.0) -> None:
        super().__init__(noise_rate, ramp)
        check_range("weight", weight, 1)
        self._more = weight - 1

    def _exchanged(self, other, mine):
        both = self._more * other * mine
        return other + both, mine + both


class DeCoupling(Selection):
    """Both networks learn where their predictions differ (Malach & Shalev-Shwartz 2017, Algorithm 1).

    A prediction is the class of the largest score, whatever the label. What counts is the mean over these
    samples, but where they are less than a tenth of the batch their sum over a tenth of it, as in the
    authors' code. Up to iteration `begin`, at least 0, default 0, all samples count.
    """

    networks = 2
    has_scores = True
    inputs = ("iteration",)

    def __init__(self, begin: int = 0) -> None:
        super().__init__()
        check_range("begin", begin, 0)
        self._begin = begin

    def weights(self, F, losses, scores, label, iteration):
        """Return the weights of the samples in the loss of each network."""
        first, second = (F.argmax(score, axis=1) for score in scores)
        differ = F.broadcast_maximum(F.broadcast_not_equal(first, second), iteration < self._begin)
        return [over_kept(F, differ, least=0.1)] * 2


class MentorNetPredefined(Selection):
    """One network learns from losses below a moving percentile (Jiang et al. 2018, MentorNet, predefined).

    A loss l weighs min(max(0, 1 - (l - λ1)/λ2), 1), or with λ2 = 0, as self-paced learning has it, 1 for
    l ≤ λ1 and else 0: the closed form of its predefined curriculum. λ1 is the moving average of the batches'
    percentiles, the running parameter `selection_level_running` (1,); with several devices it moves by the
    mean of what each makes of its share. The loss is the mean of the weighted losses over the batch.

    Parameters
    ----------
    percentile : float, default 0.7
        Share of the batch at whose loss the percentile is, in [0, 1].
    decay : float, default 0.9
        What the moving average keeps of its old value, in [0, 1); less in the first batches, so that they
        count alike.
    lambda2 : float, default 0
        Difference of losses over which the weight falls from 1 to 0, at least 0.
    burn_in : int, default 4800
        Iterations in which all samples weigh 1, at least 0: a fifth of 24,000, as in the authors' code.
    """

    inputs = ("iteration",)

    def __init__(
        self, percentile: float = 0.7, decay: float = 0.9, lambda2: float = 0.0, burn_in: int = 4800
    ) -> None:
        super().__init__()
        check_range("percentile", percentile, 0, 1)
        if not 0 <= decay < 1:
            raise LatseError(f"decay is {decay}, must be in [0, 1)")
        check_range("lambda2", lambda2, 0)
        check_range("burn_in", burn_in, 0)
        self._percentile, self._decay, self._lambda2, self._burn_in = percentile, decay, lambda2, burn_in
        self.level = running_parameter(self, "level", shape=(1,), init="zeros")

    def weights(self, F, losses, scores, label, iteration, level):
        """Return the weights of the samples."""
        above = F.broadcast_sub(losses[0], self._moved(F, losses[0], iteration, level))
        weight = F.clip(1 - above / self._lambda2, 0, 1) if self._lambda2 else above <= 0
        return [F.broadcast_maximum(weight, iteration < self._burn_in)]

    def term(self, F, losses, iteration, level):
        """Return what moves the average."""
        return moved(F, level, level - self._moved(F, losses[0], iteration, level))

    def _moved(self, F, loss, iteration, level):
        """Return the moving average with this batch in it: (1,)."""
        place = F.floor(self._percentile * (size(F, loss) - 1) + 0.5)
        percentile = F.take(F.sort(loss, axis=0), place)
        done = F.slice_axis(iteration, axis=0, begin=0, end=1)
        decay = F.minimum(done / (done + 1), self._decay)
        return F.BlockGrad(level + (1 - decay) * (percentile - level))


SELECTIONS: dict[str, type[Selection]] = {
    "co_teaching": CoTeaching,
    "co_mining": CoMining,
    "de_coupling": DeCoupling,
    "mentornet_predefined": MentorNetPredefined,
}

_REGISTRY = Registry("selection", SELECTIONS, Selection, "over latse.symbols.selection.Selection")
find = _REGISTRY.find


def parameters(name: str | None) -> dict[str, float]:
    """Return the parameters of a strategy with their defaults, none for None.

    Raises LatseError if there is none of that name.
    """
    return {} if name is None else dict(_REGISTRY.parameters(name))


def create(name: str, **parameters: float) -> Selection:
    """Return the strategy `name`; raise LatseError as `check`."""
    return _REGISTRY.create(name, **parameters)


def check(name: str | None, **parameters: float) -> None:
    """Raise LatseError if there is no strategy `name`, or a parameter is unknown or out of range."""
    if name is not None:
        create(name, **parameters)
    elif parameters:
        raise LatseError("it is a parameter of a strategy, but selection.name is null")


def size(F, array):
    """Return how many samples an array (N,) has: (1,)."""
    return F.reshape(F.sum(F.ones_like(array)), shape=(1,))


def over_kept(F, weight, least=0.0):
    """Return weights (N,) by which the mean over the batch is the mean over what is kept.

    It is the weighted mean, but of a kept weight of less than `least` of the batch over that much of it; of
    nothing kept it is 0.
    """
    samples = size(F, weight)
    kept = F.reshape(F.sum(weight), shape=(1,))
    return F.broadcast_mul(weight, samples / F.maximum(F.maximum(kept, least * samples), 1e-6))
