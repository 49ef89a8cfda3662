"""The card of a model that translates, for the Hub: what it is, its scores, how to load it; nothing of the machine."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation.scores import METRICS
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..tokenization_vanilla_transformer import VanillaTransformerTokenizer
from .card_sections import write_sections
from .results_schema import FORMAT, Evaluation, Results, Score

_HUB_METRICS = {"paper_bleu": "bleu"}  # where the Hub's name for a metric is not ours

_SIGNATURE = re.compile(r"[\w:.|+-]{1,200}")

TEMPLATE = """---
{metadata}
---

# {title}

{summary}

The encoder-decoder Transformer of [Attention Is All You Need](https://arxiv.org/abs/1706.03762):
{parameters:,} parameters, {encoder_layers} encoder and {decoder_layers} decoder layers, d_model {d_model}, d_ff {d_ff},
{heads} heads, a vocabulary of {vocabulary:,} tokens.{decoding}

{sections}
"""


def model_card(
    model: PreTrainedModel,
    name: str,
    results: Mapping[str, Any] | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    dataset: str = "validation text of the training run",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> ModelCard:
    """Writes the card of a translation model that `save_self_contained` or `push_self_contained` publishes.

    Of `results` only scores and their signatures are used; arguments of the run, with their paths and secrets, and its
    log are not. `release` writes a card with everything in it.

    Args:
        model: a whole Transformer with its head, which translates.
        name: on the Hub, "user/name"; or "name".
        results: what results.json of its run holds; None where there are no scores.
        license: by the Hub's short name, such as "apache-2.0".
        languages: by their codes, source and target, such as ["en", "de"].
        dataset: what the scores are of, such as "Multi30k validation".
        tokenizer: that of the model, which decides how it is loaded; None for one that needs no code.

    Returns:
        The card.

    Raises:
        TypeError: the model is an encoder or a decoder alone, has no head, or is not of this package.
        ValueError: the name is not one of the Hub, or a score is not a number.
    """
    require_hub_name(name)
    scores = _run_scores((results or {}).get("metrics", {}))
    title = name.rpartition("/")[2]
    of_run: Evaluation = {
        "name": "validation",
        "title": dataset,
        "role": "validation",
        "scorings": [{"runs": [scores]}],
    }
    return render_card(
        {
            "format": FORMAT,
            "name": title,
            "card": {"title": title, "license": license, "languages": list(languages), "repo_id": name},
            "model": shape_of(model, tokenizer),
            "training": {"runs": [{}], "shipped": 0},
            "evaluations": [of_run] if scores else [],
        }
    )


def shape_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> dict[str, Any]:
    """Describes a model in numbers, for `Results`.

    Args:
        model: a whole Transformer with its head, which translates.
        tokenizer: its tokenizer; None for one that needs no code.

    Returns:
        Parameters, layers and widths; how it decodes, by the fields of its `generation_config`; and whether its
        tokenizer has code.

    Raises:
        TypeError: the model is another one.
    """
    if not isinstance(model, VanillaTransformerForConditionalGeneration):
        raise TypeError(
            f"a card describes a VanillaTransformerForConditionalGeneration, and this is a {type(model).__name__}; "
            "write its card yourself, as a huggingface_hub.ModelCard"
        )
    config, decoding = model.config, model.generation_config
    fields = ("num_beams", "gnmt_length_penalty", "max_extra_tokens")
    return {
        "parameters": model.num_parameters(),
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "heads": config.num_heads,
        "vocabulary": config.vocab_size,
        "norm_position": config.norm_position,
        "tokenizer_has_code": isinstance(tokenizer, VanillaTransformerTokenizer),
        "decoding": {name: getattr(decoding, name, None) for name in fields},
    }


def render_card(results: Results, repo_id: str | None = None) -> ModelCard:
    """Writes a card of nothing but results: the same results make the same card.

    Args:
        results: what results.json of a released checkpoint holds, or part of it; a section without results is left out.
        repo_id: the name on the Hub; None for that of CARD.yaml, or for one to be filled in.

    Returns:
        The card.

    Raises:
        ValueError: the results are of a format that this version does not know.
    """
    if results.get("format") != FORMAT:
        raise ValueError(f"results.json has format {results.get('format')!r}, but this version knows {FORMAT}")
    card, shape = results["card"], results["model"]
    repo_id = repo_id or card.get("repo_id")
    return ModelCard(
        TEMPLATE.format(
            metadata=_metadata(results).to_yaml().strip(),
            title=card["title"],
            summary=card.get("summary") or "A model for translation.",
            decoding=_decoding(shape.get("decoding") or {}),
            sections=write_sections(results, repo_id),
            **{name: value for name, value in shape.items() if name != "decoding"},
        )
    )


def require_hub_name(name: str) -> None:
    """Refuses what cannot be the name of a repository.

    Args:
        name: "user/name"; or "name".

    Raises:
        ValueError: it is not one.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"`name`={name!r} is not allowed; allowed: a name of the Hub, such as user/name") from error


def _decoding(decoding: Mapping[str, Any]) -> str:
    """One sentence; nothing where the model says nothing about it."""
    said = []
    if decoding.get("num_beams"):
        said.append(f"{decoding['num_beams']} beams" if decoding["num_beams"] > 1 else "greedy search")
    if decoding.get("gnmt_length_penalty") is not None:
        said.append(f"GNMT's length penalty with α = {decoding['gnmt_length_penalty']:g}")
    if decoding.get("max_extra_tokens") is not None:
        said.append(f"at most {decoding['max_extra_tokens']} tokens more than the source has")
    return f"\nIt decodes with {', '.join(said)}." if said else ""


def _metadata(results: Results) -> ModelCardData:
    """What the Hub reads. Scores stand in `model-index` alone: `.eval_results` is for benchmarks that the Hub lists."""
    card = results["card"]
    scorings = [scoring for each in results.get("evaluations") or [] for scoring in each["scorings"]]
    metrics = dict.fromkeys(_HUB_METRICS.get(name, name) for scoring in scorings for name in scoring["runs"][0])
    # The widget of the Hub shows outputs that a card brings along, for models that no server computes.
    widget = [{"text": each["source"], "output": {"text": each["output"]}} for each in results.get("inputs") or []]
    return ModelCardData(
        language=card.get("languages") or None,
        license=card.get("license"),
        license_name=card.get("license_name"),
        license_link=card.get("license_link"),
        library_name="transformers",
        pipeline_tag=card.get("pipeline_tag") or "translation",
        datasets=card.get("datasets") or None,
        metrics=list(metrics) or None,
        tags=list(dict.fromkeys(["vanilla_transformer", "translation", *(card.get("tags") or [])])),
        widget=widget or None,
        model_name=results["name"],
        eval_results=_eval_results(results) or None,
    )


def _eval_results(results: Results) -> list[EvalResult]:
    shipped = results["training"]["shipped"]
    task = results["card"].get("pipeline_tag") or "translation"
    found = []
    for evaluation in results.get("evaluations") or []:
        for scoring in evaluation["scorings"]:
            for name, score in scoring["runs"][shipped].items():
                signature, title = score.get("signature", ""), scoring.get("title")
                found.append(
                    EvalResult(
                        task_type=task,
                        dataset_type=evaluation.get("dataset") or "text",
                        dataset_name=evaluation["title"],
                        dataset_split=evaluation.get("split"),
                        metric_type=_HUB_METRICS.get(name, name),
                        metric_name=METRICS[name] + (f" ({title})" if title else ""),
                        metric_value=round(score["value"], 2),
                        metric_args={"signature": signature} if _SIGNATURE.fullmatch(signature) else None,
                    )
                )
    return found


def _run_scores(metrics: Mapping[str, Any]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for name in METRICS:
        if (key := f"final_{name}") not in metrics:
            continue
        value = metrics[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"results: {key}={value!r} is not a score")
        signature = str(metrics.get("signatures", {}).get(name, ""))
        scores[name] = {"value": float(value), "signature": signature if _SIGNATURE.fullmatch(signature) else ""}
    return scores
