"""Translating with a trained model, or several: sentences, files and streams."""

from .ensemble import EnsembleForConditionalGeneration
from .filters import run_as_filter
from .loading import load_translator
from .translation import translate

__all__ = ["EnsembleForConditionalGeneration", "load_translator", "run_as_filter", "translate"]
