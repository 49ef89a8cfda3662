"""Models from folders: one, or several that decode together."""

import pytest
import torch
from test_pair_scores import build

from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration, load_translator
from hf_vanilla_transformer.training import train_tokenizer


def save(folder, seed, texts=("a b c",)):
    tokenizer = train_tokenizer(texts=texts, vocab_size=262)
    model = build(tokenizer, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder), model


@torch.no_grad()
def test_one_is_itself_and_several_are_an_ensemble_in_this_order(tmp_path):
    (first, one), (second, other) = save(tmp_path / "1", 1), save(tmp_path / "2", 2)
    model, tokenizer = load_translator([first])
    assert not model.training
    weight = one.get_input_embeddings().weight
    torch.testing.assert_close(model.get_input_embeddings().weight, weight)
    assert tokenizer("a b").keys() == {"input_ids", "attention_mask"}
    ensemble, _ = load_translator([first, second], dtype="float64")
    assert isinstance(ensemble, EnsembleForConditionalGeneration)
    assert not any(part.training for part in ensemble.modules())
    for member, expected in zip(ensemble.models, (one, other)):
        torch.testing.assert_close(
            member.get_input_embeddings().weight, expected.get_input_embeddings().weight.double()
        )


def test_equally_many_but_other_tokens_are_refused(tmp_path):
    (first, _), (second, _) = save(tmp_path / "1", 1), save(tmp_path / "2", 2, texts=("x y z x y z", "xy xy"))
    with pytest.raises(ValueError, match="different vocabularies") as error:
        load_translator([first, second])
    assert first in str(error.value)
    assert second in str(error.value)


def test_a_device_that_is_none_is_named(tmp_path):
    folder, _ = save(tmp_path, 1)
    with pytest.raises(ValueError, match="`device`='gpu'"):
        load_translator([folder], device="gpu")
