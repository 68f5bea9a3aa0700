"""Distributed training of click-through-rate models with Skip Meta Logit blocks."""

__version__ = "0.1.0"
