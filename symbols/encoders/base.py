"""What every encoder is: features of a face, then BN-Dropout-FC-BN to the embedding (§4.1)."""

from __future__ import annotations

from mxnet.gluon import nn

from latse.errors import LatseError
from latse.symbols.layers import Dropout, batch_norm


class Encoder(nn.HybridBlock):
    """Face images to embeddings.

    A backbone overrides `features`, and `embedding` where it has a head of its own. Two encoders of one class
    must have the same parameters by name.

    Input `data`: (N, 3, 112, 112), RGB in 0..255; the normalisation (x - 127.5) / 128 is part of the graph.
    Output `fc1`: (N, embedding_size), not normalised to unit length.

    Parameters
    ----------
    lean : bool, default False
        Whether to compute the same function of the same parameters in the form that keeps less for the
        gradient, where the backbone has one. For training alone: MXNet 1.9.1 fuses such a graph wrongly where
        it is bound for inference with its oneDNN subgraphs, which are on by default.
    dropout : float, default 0.4
        Share of the features that is dropped in training, in [0, 1).

    Attributes
    ----------
    embedding_size : int
        Length of the embedding.
    """

    embedding_size = 512

    def __init__(self, lean: bool = False, dropout: float = 0.4) -> None:
        super().__init__(prefix="")
        if not 0 <= dropout < 1:
            raise LatseError(f"dropout is {dropout}, must be in [0, 1)")
        self.lean = lean
        try:
            self.body = self.features()
            self.head = self.embedding(dropout)
        except AttributeError as error:
            order = "what features and embedding read must be set before super().__init__()"
            raise AttributeError(f"{error}; {order}") from error

    def features(self) -> nn.HybridBlock:
        """Return the block from normalised images (N, 3, 112, 112) to their features (N, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} must say what its features are")

    def embedding(self, dropout: float) -> nn.HybridBlock:
        """Return the block from features to embeddings (N, embedding_size): the paper's head."""
        head = nn.HybridSequential(prefix="")
        head.add(
            batch_norm("bn1_"),
            Dropout(dropout),
            nn.Dense(self.embedding_size, prefix="pre_fc1_"),
            batch_norm("fc1_", scale=False),
        )
        return head

    def hybrid_forward(self, F, data):
        """Return the embeddings (N, embedding_size)."""
        return F.identity(self.head(self.body((data - 127.5) * 0.0078125)), name="fc1")
