"""Translating with a trained model: sentences, files and streams."""

from .translation import translate

__all__ = ["translate"]
