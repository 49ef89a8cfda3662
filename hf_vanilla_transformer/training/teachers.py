"""Trained models that a new one also learns from: word-level distillation (Kim & Rush, 2016)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..inference import load_model, load_tokenizer
from ..loss_distillation import Teachers
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..modeling_views import is_plain_product


class TeacherModels:
    """Several trained models, whose mean prediction for each label is part of what a run learns.

    They predict without dropout, and nothing of them learns or is saved.

    Args:
        folders: of a model each.
        tokenizer: of the run, whose vocabulary theirs has to be.
        share: of the loss that is learned from them, above 0 and up to 1.
        vocab_size: rows of the embedding of the model that learns; spare ones may follow the vocabulary.
        device: where the run computes.

    Raises:
        ValueError: a model is of another kind, its pre-softmax projection is more than a matrix, or its vocabulary is
            another; the message names its folder.
        OSError: there is no such model.
    """

    def __init__(
        self,
        folders: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        share: float,
        vocab_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.share = share
        self.models: list[Any] = []
        vocabulary = tokenizer.get_vocab()
        for folder in folders:
            model = load_model(folder, "float32")
            said = f"distill_from={folder}"
            if not isinstance(model, VanillaTransformerForConditionalGeneration):
                raise ValueError(f"{said} is a {model.config.model_type} model, and no encoder-decoder Transformer")
            if not is_plain_product(model.lm_head):
                raise ValueError(f"{said}: its pre-softmax projection is more than a matrix, of which the loss knows")
            if load_tokenizer(folder).get_vocab() != vocabulary:
                raise ValueError(
                    f"{said} has another vocabulary than the run, so that its predictions are of other tokens. A run "
                    "without tokenizer_name_or_path, model_name_or_path and new_tokens takes that of its first teacher"
                )
            if model.config.vocab_size != vocab_size:
                raise ValueError(
                    f"{said} predicts {model.config.vocab_size} tokens, spare ones included, and the model of the run "
                    f"{vocab_size}; set vocab_size of config_overrides to the former"
                )
            self.models.append(model.to(device).eval().requires_grad_(False))

    def read(self, batch: Mapping[str, torch.Tensor]) -> Teachers:
        """Lets the models read a batch; call it under the autocast of the run.

        Args:
            batch: what the model that learns gets, with `labels` (B, T) and (B, S) or (B, T) each.

        Returns:
            What they make of it.
        """
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        states = []
        with torch.no_grad():
            for model in self.models:
                shifted = model.prepare_decoder_input_ids_from_labels(batch["labels"])
                states.append(model.model(**inputs, decoder_input_ids=shifted, use_cache=False).last_hidden_state)
        return Teachers(self.share, tuple(states), tuple(model.lm_head.weight for model in self.models))


__all__ = ["TeacherModels"]
