"""The card of a model on the Hub: what it is, how it was scored, how to load it; nothing of the machine it is from."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import PreTrainedModel

# Of the metrics in results.json those that a card quotes: type on the Hub, name, and the key of the signature.
SCORES = {"final_bleu": ("bleu", "BLEU", "bleu"), "final_chrf": ("chrf", "chrF", "chrf")}

_SIGNATURE = re.compile(r"[\w:.|+-]{1,200}")

TEXT = """---
{metadata}
---

# {title}

The encoder-decoder Transformer of [Attention Is All You Need](https://arxiv.org/abs/1706.03762) for translation:
{parameters:,} parameters, {encoder_layers} encoder and {decoder_layers} decoder layers, d_model {d_model}, d_ff {d_ff},
{heads} heads, a vocabulary of {vocabulary:,} tokens.
{scores}
## Use

```python
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

model = AutoModelForSeq2SeqLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = PreTrainedTokenizerFast.from_pretrained("{name}")
inputs = tokenizer(["A sentence."], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True))
```
"""


def model_card(
    model: PreTrainedModel,
    name: str,
    results: Mapping[str, Any] | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    dataset: str = "validation text of the training run",
) -> ModelCard:
    """Writes the card of a model that `save_self_contained` or `push_self_contained` publishes.

    Of `results` only scores and their signatures are used; arguments of the run, with their paths and secrets, and its
    log are not.

    Args:
        model: a model of this package.
        name: on the Hub, "user/name"; or "name".
        results: what results.json of its run holds; None where there are no scores.
        license: by the Hub's short name, such as "apache-2.0".
        languages: by their codes, source and target, such as ["en", "de"].
        dataset: what the scores are of, such as "Multi30k validation".

    Returns:
        The card.

    Raises:
        ValueError: the name is not one of the Hub, or a score is not a number.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"`name`={name!r} is not allowed; allowed: a name of the Hub, such as user/name") from error
    found = _eval_results((results or {}).get("metrics", {}), dataset)
    data = ModelCardData(
        language=list(languages) or None,
        license=license,
        library_name="transformers",
        pipeline_tag="translation",
        tags=["vanilla_transformer", "translation"],
        model_name=name.rpartition("/")[2],
        eval_results=found or None,
    )
    config = model.config
    return ModelCard(
        TEXT.format(
            metadata=data.to_yaml().strip(),
            title=name.rpartition("/")[2],
            name=name,
            parameters=model.num_parameters(),
            encoder_layers=config.num_encoder_layers,
            decoder_layers=config.num_decoder_layers,
            d_model=config.d_model,
            heads=config.num_heads,
            d_ff=config.d_ff,
            vocabulary=config.vocab_size,
            scores=_table(found, dataset),
        )
    )


def _eval_results(metrics: Mapping[str, Any], dataset: str) -> list[EvalResult]:
    results = []
    for key, (metric_type, metric_name, of_signature) in SCORES.items():
        if key not in metrics:
            continue
        value = metrics[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"results: {key}={value!r} is not a score")
        signature = str(metrics.get("signatures", {}).get(of_signature, ""))
        results.append(
            EvalResult(
                task_type="translation",
                dataset_type="text",
                dataset_name=dataset,
                metric_type=metric_type,
                metric_name=metric_name,
                metric_value=round(float(value), 2),
                metric_args={"signature": signature} if _SIGNATURE.fullmatch(signature) else None,
            )
        )
    return results


def _table(results: Sequence[EvalResult], dataset: str) -> str:
    if not results:
        return ""
    lines = ["", "## Scores", "", f"Of the {dataset}, by sacrebleu:", ""]
    lines += ["| Metric | Score | Signature |", "|---|---|---|"]
    for each in results:
        signature = (each.metric_args or {}).get("signature", "").replace("|", "\\|")  # a bar would end the cell
        lines.append(f"| {each.metric_name} | {each.metric_value:.2f} | {signature} |")
    return "\n".join([*lines, ""])
