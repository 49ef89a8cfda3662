"""The metric itself. `evaluate` copies this file elsewhere and imports the copy: no relative imports."""

from typing import Any

import evaluate
from datasets import Features, Sequence, Value

from hf_vanilla_transformer.evaluation.scores import score_translations

_DESCRIPTION = (
    "BLEU, chrF and TER of translations, or error rates of pronunciations, each with its signature, by sacrebleu."
)

_INPUTS = """
Args:
    predictions: translations, detokenised text.
    references: one for each, or a list of several for each.
    metrics: which scores to compute (default: bleu, chrf and ter, which takes many times as long as the rest; also wer
        and per, error rates of whole lines and of their units).
    lowercase: whether to ignore case (default: False).
    tokenize: name of sacrebleu's tokeniser for BLEU (default: "13a").

Returns:
    each metric by its name, in percent; and its signature, such as bleu_signature.
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

    def _compute(
        self, predictions: Any, references: Any, metrics: Any = ("bleu", "chrf", "ter"), **options: Any
    ) -> dict[str, Any]:
        scores = score_translations(list(predictions), list(references), metrics, **options)
        values = {name: score.value for name, score in scores.items()}
        return values | {f"{name}_signature": score.signature for name, score in scores.items()}
