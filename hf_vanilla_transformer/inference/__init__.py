"""Translating with a trained model, or several: sentences, files and streams."""

from ..batch_translation import Translation
from .ensemble import EnsembleForConditionalGeneration
from .files import load_translator, translated_lines, write_lines
from .outputs import open_output
from .pipes import run_as_filter
from .translation import translate, translate_with_details

__all__ = [
    "EnsembleForConditionalGeneration",
    "Translation",
    "load_translator",
    "open_output",
    "run_as_filter",
    "translate",
    "translate_with_details",
    "translated_lines",
    "write_lines",
]
