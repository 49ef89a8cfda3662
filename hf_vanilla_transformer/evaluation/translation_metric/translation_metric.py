"""The metric itself. `evaluate` copies this file elsewhere and imports the copy: no relative imports."""

from dataclasses import asdict
from typing import Any

import evaluate
from datasets import Features, Sequence, Value

from hf_vanilla_transformer.evaluation.scores import score_translations

_DESCRIPTION = "BLEU, chrF and TER of translations, each with its signature, by sacrebleu."

_INPUTS = """
Args:
    predictions: translations, detokenised text.
    references: one for each, or a list of several for each.
    ter: whether to compute TER too (default: True), which takes many times as long as the rest.
    lowercase: whether to ignore case (default: False).
    tokenize: name of sacrebleu's tokeniser for BLEU (default: "13a").

Returns:
    bleu, chrf, ter: in percent; and bleu_signature, chrf_signature, ter_signature.
"""


class TranslationMetric(evaluate.Metric):
    """`score_translations` under the interface of `evaluate`."""

    def _info(self) -> evaluate.MetricInfo:
        text = Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                Features({"predictions": text, "references": Sequence(text)}),
                Features({"predictions": text, "references": text}),
            ],
            reference_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def _compute(self, predictions: Any, references: Any, ter: bool = True, **options: Any) -> dict[str, Any]:
        return asdict(score_translations(list(predictions), list(references), ter=ter, **options))
