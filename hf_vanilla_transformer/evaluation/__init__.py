"""Scores of a model: perplexity of given translations, BLEU and chrF of its own."""

from .likelihood import LabelLikelihood, label_likelihood
from .scores import TranslationScores, score_translations

__all__ = ["LabelLikelihood", "TranslationScores", "label_likelihood", "score_translations"]
