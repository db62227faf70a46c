"""The generative losses of §3.2, one value a sample, and those of a user's own."""

from __future__ import annotations

from types import MappingProxyType

from mxnet.gluon import nn

from latse.own_class import Registry

# Wang et al. 2004: an 11x11 window, its standard deviation in pixels, and the two stabilising constants.
RADIUS = 5
SIGMA = 1.5
K1, K2 = 0.01, 0.03


class GenerativeLoss(nn.HybridBlock):
    """The base of every loss of generated faces.

    A loss overrides `hybrid_forward(F, generated, target)`: two arrays (N, 3, 112, 112), RGB in [-1, 1], to
    what is to be minimised of each sample, (N,). The gradient flows into `generated`.

    Attributes
    ----------
    metric : str
        What the metrics of a run call it, and the graph its output; default: the name of the class.
    """

    def __init_subclass__(cls) -> None:
        cls.metric = cls.__dict__.get("metric", cls.__name__.lower())

    def __init__(self) -> None:
        super().__init__()

    def shown(self, F, loss):
        """Return what the metrics say of the loss (N,): by default the loss itself."""
        return loss


class L1(GenerativeLoss):
    """Mean absolute difference over the pixels and channels: two (N, C, H, W) arrays to (N,)."""

    def hybrid_forward(self, F, x, y):
        """Return the mean of |x - y| of each sample."""
        return F.mean(F.abs(x - y), axis=0, exclude=True)


class SSIM(nn.HybridBlock):
    """Structural similarity (Wang et al. 2004), the mean over the channels and the windows inside the image.

    Two (N, C, H, W) arrays, H and W at least 11, to (N,) in [-1, 1]. Equal to scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.

    Parameters
    ----------
    data_range : float, default 1
        Difference between the largest and the smallest possible value. The similarity is defined for images
        whose smallest value is 0: on signed ones two negative terms can pass for a likeness.
    """

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__()
        self._c1 = (K1 * data_range) ** 2
        self._c2 = (K2 * data_range) ** 2

    def hybrid_forward(self, F, x, y):
        """Return the similarity of each sample."""
        # fp32 is out by up to 1e-6 in E[x²] - E[x]², which division by the small c2 makes 4e-4 of the result.
        x, y = F.cast(x, dtype="float64"), F.cast(y, dtype="float64")
        mean_x, mean_y = self._blur(F, x), self._blur(F, y)
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        covariance = self._blur(F, x * y) - product
        variances = self._blur(F, x * x + y * y) - squares
        luminance = (2 * product + self._c1) / (squares + self._c1)
        contrast_structure = (2 * covariance + self._c2) / (variances + self._c2)
        similarity = F.mean(luminance * contrast_structure, axis=0, exclude=True)
        return F.cast(similarity, dtype="float32")

    def _blur(self, F, x):
        """Return the Gaussian mean of each window inside the image, (N, C, H-10, W-10)."""
        for _ in range(2):
            x = F.dot(
                F.transpose(x, (0, 1, 3, 2)), self._window_weights(F, F.slice_axis(x, axis=3, begin=0, end=1))
            )
        return x

    def _window_weights(self, F, column):
        """Return the matrix (H, H-10), column j the window that starts at j; `column` is (N, C, H, 1)."""
        pixel = F.contrib.arange_like(column, axis=2)
        centre = F.slice_axis(pixel, axis=0, begin=RADIUS, end=-RADIUS)
        distance = F.broadcast_sub(F.expand_dims(pixel, 1), F.expand_dims(centre, 0))
        weight = F.exp(distance * distance / (-2 * SIGMA**2)) * (F.abs(distance) <= RADIUS)
        return F.broadcast_div(weight, F.sum(weight, axis=0, keepdims=True))


class Similarity(GenerativeLoss):
    """SimLoss = (1 - SSIM) / 2 (eq. 13) of images in [-1, 1]: two (N, C, H, W) arrays to (N,) in [0, 1]."""

    metric = "ssim"

    def __init__(self) -> None:
        super().__init__()
        self.similarity = SSIM()

    def hybrid_forward(self, F, x, y):
        """Return the loss of each sample."""
        return (1 - self.similarity((x + 1) / 2, (y + 1) / 2)) / 2

    def shown(self, F, loss):
        """Return the SSIM of each sample."""
        return 1 - 2 * loss


LOSSES = {"l1": L1, "similarity": Similarity}
PAPERS = MappingProxyType(dict.fromkeys(LOSSES, 1.0))  # weights, eq. 14
_REGISTRY = Registry("generative loss", LOSSES, GenerativeLoss, "over latse.symbols.losses.GenerativeLoss")
create = _REGISTRY.create
