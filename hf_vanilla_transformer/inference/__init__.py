"""Translating with a trained model, or several: sentences, files and streams."""

from .ensemble import EnsembleForConditionalGeneration
from .translation import translate

__all__ = ["EnsembleForConditionalGeneration", "translate"]
