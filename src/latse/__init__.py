"""LATSE: more information supervised probabilistic deep face embedding learning, in MXNet/Gluon."""

from latse.runtime import features, prepare

__all__ = ["__version__", "features"]
__version__ = "0.1.0"

prepare()
