"""LATSE: more information supervised probabilistic deep face embedding learning, in MXNet/Gluon."""

__version__ = "0.1.0"
