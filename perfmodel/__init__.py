"""Predict and plan the serving of very large Mixture-of-Experts models."""

__version__ = "0.1.0"
