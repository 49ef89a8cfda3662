"""Trained models that a new one also learns from: word-level distillation (Kim & Rush, 2016)."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..data.text_files import hash_file
from ..inference import load_model, load_tokenizer
from ..loss_distillation import Teachers
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..modeling_views import is_plain_product


def weights_of_teachers(folders: Sequence[str]) -> list[str]:
    """Says by which weights teachers are recognised, wherever they lie.

    Args:
        folders: of a model each; or the name of one on the Hub, which stands for itself.

    Returns:
        16 hexadecimal digits, or the name, of each.
    """
    found = []
    for folder in folders:
        digest, files = hashlib.sha256(), sorted(Path(folder).glob("*.safetensors"))
        for path in files:
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
        found.append(digest.hexdigest()[:16] if files else str(folder))
    return found


class TeacherModels:
    """Several trained models, whose mean prediction for each label is part of what a run learns.

    They predict without dropout, and nothing of them learns or is saved.

    Args:
        folders: of a model each.
        tokenizer: of the run, whose vocabulary theirs has to be.
        share: of the loss that is learned from them, above 0 and up to 1.
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
            if load_tokenizer(folder).get_vocab() != vocabulary or model.config.vocab_size != len(vocabulary):
                raise ValueError(
                    f"{said} has another vocabulary than the run, so that its predictions are of other tokens; leave "
                    "tokenizer_name_or_path out, and the run takes that of its first teacher"
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


__all__ = ["TeacherModels", "weights_of_teachers"]
