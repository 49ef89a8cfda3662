"""In: BERT folders, as transformers' BertModel and the models with its heads save them."""

import re
from pathlib import Path
from typing import Any

from transformers import BertConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from ..modeling_encoder_only import (
    VanillaTransformerEncoderModel,
    VanillaTransformerEncoderPreTrainedModel,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerForTokenClassification,
)
from .checkpoints import PROJECTION, PROJECTION_BIAS, build, errors_name, find, read_folder
from .model_folder import load_tokenizer, read_config, refuse_other_values

logger = logging.get_logger(__name__)

BERT_NAMES = {
    r"^(encoder|embed_token_types)\.": r"model.\1.",  # a model without a head
    r"^model\.embed_token_types\.": "bert.embeddings.token_type_embeddings.",
    r"^model\.encoder\.embed_tokens\.": "bert.embeddings.word_embeddings.",
    r"^model\.encoder\.embed_positions\.": "bert.embeddings.position_embeddings.",
    r"^model\.encoder\.embedding_norm\.": "bert.embeddings.LayerNorm.",
    r"^model\.encoder\.layers\.": "bert.encoder.layer.",
    r"\.self_attention\.q_proj\.": ".attention.self.query.",
    r"\.self_attention\.k_proj\.": ".attention.self.key.",
    r"\.self_attention\.v_proj\.": ".attention.self.value.",
    r"\.self_attention\.out_proj\.": ".attention.output.dense.",
    r"\.self_attention_norm\.": ".attention.output.LayerNorm.",
    r"\.feed_forward\.fc1\.": ".intermediate.dense.",
    r"\.feed_forward\.fc2\.": ".output.dense.",
    r"\.feed_forward_norm\.": ".output.LayerNorm.",
    r"^transform\.dense\.": "cls.predictions.transform.dense.",
    r"^transform\.norm\.": "cls.predictions.transform.LayerNorm.",
    r"^pooling\.": "bert.pooler.",
}

# Fields of our config, and theirs.
BERT_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "num_encoder_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "activation_function": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "num_learned_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "classifier_dropout": "classifier_dropout",
    "tie_word_embeddings": "tie_word_embeddings",
    "bos_token_id": "bos_token_id",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
    "id2label": "id2label",
    "label2id": "label2id",
    "problem_type": "problem_type",
}

# Ours for each class of theirs.
_CLASSES: dict[str, type[VanillaTransformerEncoderPreTrainedModel]] = {
    "BertModel": VanillaTransformerEncoderModel,
    "BertForMaskedLM": VanillaTransformerForMaskedLM,
    "BertForPreTraining": VanillaTransformerForMaskedLM,
    "BertForSequenceClassification": VanillaTransformerForSequenceClassification,
    "BertForTokenClassification": VanillaTransformerForTokenClassification,
}
# What no field of ours says, and the values with which BERT is the formula of ours.
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
_POOLER, _NEXT_SENTENCE = r"^bert\.pooler\.", r"^cls\.seq_relationship\."
_PRETRAINED = {_POOLER: "the pooler", _NEXT_SENTENCE: "the head for next sentences"}
# Parts of theirs that ours of the class has no place for. Folders of the Hub, bert-base-uncased for one, say that they
# are a BertForMaskedLM and have all weights of pre-training.
_DROPPED = {
    "BertModel": {_POOLER: "the pooler"},
    "BertForMaskedLM": _PRETRAINED,
    "BertForPreTraining": _PRETRAINED,
    "BertForTokenClassification": {_POOLER: "the pooler"},
}
# Positions are counted, and the copies of tied matrices and biases are stored by some versions.
_NO_WEIGHTS = r"\.position_ids$|^cls\.predictions\.(decoder\.(weight|bias)|bias)$"


def load_bert(folder: str | Path) -> VanillaTransformerEncoderPreTrainedModel:
    """Reads a BERT model from its folder; logits and hidden states stay those of the original.

    A model without a head, or with one for tokens, loses the pooler where the folder has one, and a model for masked
    tokens also the head for next sentences; a warning says so. To start a classifier of texts from either, load the
    converted folder by `AutoModelForSequenceClassification`, whose head is then new. Two things are not BERT's: without
    an `attention_mask`, padding is masked, and with padding on the left, positions are counted from the first token.

    Args:
        folder: has `config.json` and the weights in it, such as a download of google-bert/bert-base-uncased.

    Returns:
        Our model with its weights, float32, in eval mode, of the class for the same task.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged, the model is another one, or the checkpoint does not fit; the message has the
            first names and shapes that differ.
    """
    with errors_name(folder):
        return _load(folder)


def load_bert_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase | None:
    """Reads the tokenizer that a BERT folder has in it, as it is.

    Args:
        folder: as for `load_bert`.

    Returns:
        The tokenizer; None where the folder has neither a `tokenizer.json` nor a `vocab.txt`.
    """
    return load_tokenizer(folder, "tokenizer.json", "vocab.txt")


def _load(folder: str | Path) -> VanillaTransformerEncoderPreTrainedModel:
    config = read_config(folder, BertConfig)
    their_class = (config.architectures or ["BertModel"])[0]
    if their_class not in _CLASSES:
        raise ValueError(f"{folder}: describes a {their_class}; only {', '.join(_CLASSES)} can be converted")
    refuse_other_values(folder, config, _ONLY)
    tensors = {_today(name): tensor for name, tensor in read_folder(folder).items()}
    dropped = _DROPPED.get(their_class, {})
    gone = [part for pattern, part in dropped.items() if any(re.search(pattern, name) for name in tensors)]
    if gone:
        logger.warning(f"{folder}: {' and '.join(gone)} of this {their_class} has no place here, and is left out")
    model_class = _CLASSES[their_class]
    fields: dict[str, Any] = {ours: getattr(config, theirs) for ours, theirs in BERT_FIELDS.items()}
    places = {}
    if model_class is VanillaTransformerForMaskedLM:
        # Of the two biases, BERT adds the second; where its embeddings are tied, it is the first.
        biases = ["cls.predictions.bias", "cls.predictions.decoder.bias"]
        if config.tie_word_embeddings:
            places[PROJECTION] = "bert.embeddings.word_embeddings.weight"
        else:
            places[PROJECTION] = "cls.predictions.decoder.weight"
            biases.reverse()
        places[PROJECTION_BIAS] = find(tensors, "bias of the pre-softmax projection", *biases)
        fields |= {"masked_lm_head": "transform", "final_logits_bias": True}
    return build(
        {
            **fields,
            "position_encoding": "learned",
            "embedding_norm": True,
            "scale_embeddings": False,
            "attention_bias": True,
            "pooling": "first_tanh",
            "label_smoothing": 0.0,
        },
        tensors,
        BERT_NAMES,
        places,
        "|".join([_NO_WEIGHTS, *dropped]),
        model_class,
    )


def _today(name: str) -> str:
    """The name by which transformers saves a tensor with a head today; old files call a norm's weight gamma."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
