"""Evaluation: the probability of given translations; BLEU, chrF, TER and error rates; comparisons of systems."""

from .by_length import LengthComparison, LengthGroup, check_bounds, compare_by_length, score_by_length
from .comparison import compare_systems
from .error_rates import PhoneErrorRate, WordErrorRate, edit_distance
from .likelihood import LabelLikelihood, label_likelihood
from .moses import moses_description, moses_lowercased, paper_description, paper_tokenized
from .pair_scores import PairScore, ScoreTotals, score_pairs
from .scores import Score, default_tokenizer, make_metrics, score_translations
from .scorings import Scoring, moses_lowercase_scoring, paper_scoring
from .significance import PairedComparison, paired_bootstrap
from .systems import System, system_of_model
from .tables import comparison_table, length_tables, tried_table
from .test_sets import EvaluationSet, files_of_test_set, read_test_set, read_test_sets
from .translation_metric import load_translation_metric, translation_metric_path
from .tuning import TriedDecoding, best_decoding, check_savable, save_decoding, try_decodings

__all__ = [
    "EvaluationSet",
    "LabelLikelihood",
    "LengthComparison",
    "LengthGroup",
    "PairScore",
    "PairedComparison",
    "PhoneErrorRate",
    "Score",
    "ScoreTotals",
    "Scoring",
    "System",
    "TriedDecoding",
    "WordErrorRate",
    "best_decoding",
    "check_bounds",
    "check_savable",
    "compare_by_length",
    "compare_systems",
    "comparison_table",
    "default_tokenizer",
    "edit_distance",
    "files_of_test_set",
    "label_likelihood",
    "length_tables",
    "load_translation_metric",
    "make_metrics",
    "moses_description",
    "moses_lowercase_scoring",
    "moses_lowercased",
    "paired_bootstrap",
    "paper_description",
    "paper_scoring",
    "paper_tokenized",
    "read_test_set",
    "read_test_sets",
    "save_decoding",
    "score_by_length",
    "score_pairs",
    "score_translations",
    "system_of_model",
    "translation_metric_path",
    "tried_table",
    "try_decodings",
]
