"""The networks of Figure 2, assembled from encoder, margin, gate, decoder and losses."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Mapping

import mxnet as mx
from mxnet.gluon import nn

from latse.errors import LatseError
from latse.symbols import losses
from latse.symbols.decoder import Decoder
from latse.symbols.gate import Gate, Rank
from latse.symbols.margins import ClassCentres, Loss
from latse.symbols.margins.geometry import TINY, unit_length
from latse.symbols.names import TWIN
from latse.symbols.selection import Selection

IMAGE_SHAPE = (3, 112, 112)


class Classifier(nn.HybridBlock):
    """Encoder and margin alone: a teacher, or a student with neither decoder nor filter.

    Inputs: `data` (N, 3, 112, 112) RGB in 0..255, `softmax_label` (N,), and those of the margin.
    Outputs: `loss` (N,), to be minimised, and its part `dloss` (N,).
    """

    inputs = ("data", "softmax_label")

    def __init__(self, encoder: nn.HybridBlock, margin: Loss) -> None:
        super().__init__(prefix="")
        margin.set_embedding_size(encoder.embedding_size)
        self.encoder = encoder
        self.margin = margin
        self.inputs = (*self.inputs, *margin.inputs)

    def hybrid_forward(self, F, data, label, *margin_inputs):
        """Return the outputs."""
        dloss = self.margin(self.encoder(data), label, *margin_inputs)
        return F.MakeLoss(dloss, name="loss"), F.BlockGrad(dloss, name="dloss")


class Scores(nn.HybridBlock):
    """What `ClassCentres` computes, in a graph that is trained, over a margin's class centres of any length.

    A dense layer here would fail, in MXNet 1.9.1 with oneDNN, at the second step of some graphs where nobody
    takes its gradient. Raises LatseError if the margin has no class centres.
    """

    def __init__(self, margin: Loss) -> None:
        super().__init__(prefix="")
        if not hasattr(margin, "weight"):
            raise LatseError("the selection compares embeddings with class centres, but the margin has none")
        self._classes, self.weight = margin.classes, margin.weight

    def hybrid_forward(self, F, embedding, weight):
        """Return the scores (N, K) of embeddings (N, D)."""
        unit = F.cast(unit_length(F, F.cast(embedding, dtype="float64")), dtype="float32")
        centres = F.reshape(weight, shape=(-1, 0), reverse=True)  # of each person one or several
        length = F.expand_dims(F.norm(centres, axis=1), 0)
        cosine = F.broadcast_div(F.dot(unit, centres, transpose_b=True), F.maximum(length, TINY))
        return F.max(F.reshape(cosine, shape=(0, self._classes, -1)), axis=2)


class Branch(nn.HybridBlock):
    """One network under a selection: `data`, `softmax_label` and the margin's inputs to its losses (N,).

    With `has_scores` also to its scores (N, K), the cosines of `ClassCentres`. `make` makes its encoder and
    its margin; their parameters begin with `prefix`. Raises LatseError if there are no class centres for the
    scores, or a parameter has another name.
    """

    def __init__(self, make: Callable[[], tuple], prefix: str, has_scores: bool) -> None:
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.encoder, self.margin = make()
            self.margin.set_embedding_size(self.encoder.embedding_size)
            self.scores = Scores(self.margin) if has_scores else None
        for parameter in self.collect_params():
            if not parameter.startswith(prefix):
                raise LatseError(
                    f"two networks of {type(self.encoder).__name__} cannot be trained together: both would "
                    f"have a parameter {parameter}"
                )

    def hybrid_forward(self, F, data, label, *margin_inputs):
        """Return the losses and, if they are wanted, the scores."""
        embedding = self.encoder(data)
        loss = self.margin(embedding, label, *margin_inputs)
        return (loss,) if self.scores is None else (loss, self.scores(embedding))


class Selected(nn.HybridBlock):
    """One network, or two side by side, that learn from the samples which a selection weighs.

    Inputs: `data`, `softmax_label`, those of the margin and those of the selection.
    Outputs: `loss` (N,), over all networks the sum of weight times loss; `dloss` (N,), the first network's
    loss of each sample; `kept` (N,), 1 where the first network learns from it, else 0.

    `make` makes an encoder and its margin, once for each network. The parameters of the second begin with
    `latse.symbols.names.TWIN`.
    """

    def __init__(self, make: Callable[[], tuple], selection: Selection) -> None:
        super().__init__(prefix="")
        self.selection = selection
        self.branches = nn.HybridSequential(prefix="")
        for prefix in ("", TWIN)[: selection.networks]:
            self.branches.add(Branch(make, prefix, selection.has_scores))
        self._margin_inputs = self.branches[0].margin.inputs
        further = dict.fromkeys((*self._margin_inputs, *selection.inputs))
        self.inputs = ("data", "softmax_label", *further)

    def hybrid_forward(self, F, data, label, *arrays):
        """Return the outputs."""
        given = dict(zip(self.inputs[2:], arrays))
        margin_inputs, inputs = (
            [given[name] for name in names] for names in (self._margin_inputs, self.selection.inputs)
        )
        found = [branch(data, label, *margin_inputs) for branch in self.branches]
        losses, *scores = zip(*found)
        *weights, term = self.selection(label, *inputs, *losses, *(one for ones in scores for one in ones))
        loss = sum(weight * part for weight, part in zip(weights, losses))
        return (
            F.MakeLoss(F.broadcast_add(loss, term), name="loss"),
            F.BlockGrad(losses[0], name="dloss"),
            F.BlockGrad(weights[0] > 0, name="kept"),
        )


class FilteredStudent(Classifier):
    """Encoder and margin under the teacher's filter (Algorithm 1 without its generative part).

    Inputs: `data`, `softmax_label`, `keep` (N,), 1 where the teacher has the label among its top k, else 0,
    and those of the margin.
    Outputs: `loss`, `dloss`.

    Without `gate_losses`, as in Algorithm 1, a refused sample still teaches the class centres (and the
    decoder), not the encoder; with it, nothing.
    """

    inputs = ("data", "softmax_label", "keep")

    def __init__(self, encoder: nn.HybridBlock, margin: Loss, gate_losses: bool) -> None:
        super().__init__(encoder, margin)
        self.gate = Gate()
        self.loss_gate = Gate() if gate_losses else nn.HybridLambda(lambda F, loss, keep: loss)

    def hybrid_forward(self, F, data, label, keep, *margin_inputs):
        """Return the outputs."""
        dloss = self.margin(self.gate(self.encoder(data), keep), label, *margin_inputs)
        return F.MakeLoss(self.loss_gate(dloss, keep), name="loss"), F.BlockGrad(dloss, name="dloss")


class Student(FilteredStudent):
    """LATSE: encoder, margin, filter and the decoder that restores the person's mean face (Figure 2).

    Inputs: `data`, `softmax_label`, `keep`, `mean_face` (N, 3, 112, 112), RGB in [-1, 1] (eq. 12), and those
    of the margin.
    Outputs: `loss` = DLoss + Σ weight·GLoss (eq. 14, 15), `dloss`, and what the metrics show of each
    generative loss under its `metric` (`l1`, `ssim`), each (N,).

    `weights` are the generative losses, as of `latse.symbols.losses.create`, with their weights, at least 0;
    default L1 and SimLoss, 1 each. Raises LatseError if there is no such loss, or two outputs would have one
    name.
    """

    inputs = ("data", "softmax_label", "keep", "mean_face")

    def __init__(
        self,
        encoder: nn.HybridBlock,
        margin: Loss,
        decoder: Decoder,
        gate_losses: bool = False,
        weights: Mapping[str, float] = losses.PAPERS,
    ) -> None:
        super().__init__(encoder, margin, gate_losses)
        self.decoder = decoder
        self.terms = nn.HybridSequential(prefix="")
        self.terms.add(*map(losses.create, weights))
        self._weights = list(weights.values())
        outputs = Counter(["loss", "dloss", *(term.metric for term in self.terms)])
        for name in (name for name, count in outputs.items() if count > 1):
            raise LatseError(f"a generative loss needs another name than '{name}', which is taken")

    def hybrid_forward(self, F, data, label, keep, mean_face, *margin_inputs):
        """Return the outputs."""
        embedding = self.gate(self.encoder(data), keep)
        generated = self.decoder(embedding)
        loss = dloss = self.margin(embedding, label, *margin_inputs)
        parts = [F.BlockGrad(dloss, name="dloss")]
        for weight, term in zip(self._weights, self.terms):
            part = term(generated, mean_face)
            loss = loss + weight * part
            parts.append(F.BlockGrad(term.shown(F, part), name=term.metric))
        return (F.MakeLoss(self.loss_gate(loss, keep), name="loss"), *parts)


class AutoEncoder(nn.HybridBlock):
    """Encoder and decoder at test time: `data` to `fc1` (N, D) and `generated` (N, 3, 112, 112)."""

    inputs = ("data",)

    def __init__(self, encoder: nn.HybridBlock, decoder: Decoder) -> None:
        super().__init__(prefix="")
        self.encoder = encoder
        self.decoder = decoder

    def hybrid_forward(self, F, data):
        """Return embedding and generated face."""
        embedding = self.encoder(data)
        return embedding, self.decoder(embedding)


class Verdict(nn.HybridBlock):
    """The fixed teacher as a judge of labels (§3.3): how many classes it finds likelier than the label.

    `centres` is the shape of the class centres, as of `ClassCentres`.

    Its probabilities are softmax over scaled cosines without margin, so the order of the cosines is theirs.
    Inputs: `embedding` (N, D), `softmax_label` (N,). Outputs: `rank` (N,) in 0..K-1; rank < k: in the
    top k; then `least` and `most`, between which it lies if each cosine is wrong by `doubt`/2 at most: these
    two do not tell cosines apart that are closer than `doubt`, which is above 1e-6; and the `length` of the
    embedding: without one the others mean nothing.
    """

    inputs = ("embedding", "softmax_label")

    def __init__(self, centres: tuple[int, ...], doubt: float) -> None:
        super().__init__(prefix="")
        self.scores = ClassCentres(centres)
        self.rank, self.least, self.most = Rank(), Rank(doubt), Rank(-doubt)

    def hybrid_forward(self, F, embedding, label):
        """Return the outputs."""
        scores = self.scores(embedding)
        ranks = self.rank(scores, label), self.least(scores, label), self.most(scores, label) - 1
        return (*ranks, F.norm(embedding, axis=1))


class Likeliest(nn.HybridBlock):
    """Whom the fixed teacher finds in an image, besides the person that the label names.

    Inputs: `embedding` (N, D), `softmax_label` (N,). Outputs, (N,) each: the cosine with the label's class
    centre, the largest one with another, and the class of that one, 0..K-1. `centres` is as of `Verdict`.
    """

    inputs = ("embedding", "softmax_label")

    def __init__(self, centres: tuple[int, ...]) -> None:
        super().__init__(prefix="")
        self._classes = centres[0]
        self.scores = ClassCentres(centres)

    def hybrid_forward(self, F, embedding, label):
        """Return the outputs."""
        scores = self.scores(embedding)
        # A cosine is above -2.
        others = scores - 4 * F.one_hot(label, depth=self._classes)
        return F.pick(scores, label, axis=1), F.max(others, axis=1), F.argmax(others, axis=1)


def trace(network: nn.HybridBlock) -> mx.sym.Symbol:
    """Trace a network to one Symbol over the variables named in its `inputs` (an encoder's is `data`).

    Biases and the shifts of batch normalisations are exempt from weight decay, as in insightface.
    """
    for parameter in network.collect_params(".*(bias|beta)$").values():
        parameter.wd_mult = 0.0
    outputs = network(*[mx.sym.var(name) for name in getattr(network, "inputs", ("data",))])
    return mx.sym.Group(list(outputs)) if isinstance(outputs, (list, tuple)) else outputs
