"""Evaluation: the probability of given translations; BLEU, chrF and TER; comparisons of two systems."""

from .likelihood import LabelLikelihood, label_likelihood
from .moses import moses_description, moses_lowercased
from .pair_scores import PairScore, ScoreTotals, score_pairs
from .scores import TranslationScores, default_tokenizer, make_metrics, score_translations
from .significance import PairedComparison, paired_bootstrap
from .systems import System, compare_systems, comparison_table, system_of_model
from .test_sets import EvaluationSet, read_test_set
from .translation_metric import load_translation_metric, translation_metric_path

__all__ = [
    "EvaluationSet",
    "LabelLikelihood",
    "PairScore",
    "PairedComparison",
    "ScoreTotals",
    "System",
    "TranslationScores",
    "compare_systems",
    "comparison_table",
    "default_tokenizer",
    "label_likelihood",
    "load_translation_metric",
    "make_metrics",
    "moses_description",
    "moses_lowercased",
    "paired_bootstrap",
    "read_test_set",
    "score_pairs",
    "score_translations",
    "system_of_model",
    "translation_metric_path",
]
