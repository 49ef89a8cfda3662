"""The first proof of every Transformer: it learns to copy, to reverse, and a handful of sentences by heart."""

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

V = 30
START, PAD, EOS = 0, 1, 2
FIRST_WORD = 4
SHORTEST, LONGEST = 3, 10


def small_model(d_model: int, num_layers: int) -> VanillaTransformerForConditionalGeneration:
    return VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(
            vocab_size=V,
            d_model=d_model,
            num_heads=4,
            d_ff=2 * d_model,
            num_encoder_layers=num_layers,
            num_decoder_layers=num_layers,
            dropout=0.0,
            label_smoothing=0.0,
        )
    )


def random_words(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, LONGEST) words, and (count,) how many of them are meant."""
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=generator)
    return torch.randint(FIRST_WORD, V, (count, LONGEST), generator=generator), lengths


def with_end(words: torch.Tensor, lengths: torch.Tensor, filler: int) -> torch.Tensor:
    """(count, LONGEST + 1): `</s>` behind the words that are meant, and `filler` behind that."""
    positions = torch.arange(LONGEST + 1)
    words = torch.nn.functional.pad(words, (0, 1))
    words = words.masked_fill(positions == lengths[:, None], EOS)
    return words.masked_fill(positions > lengths[:, None], filler)


def reverse(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    mirrored = (lengths[:, None] - 1 - torch.arange(LONGEST)).clamp(min=0)
    return words.gather(1, mirrored)


def copy(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return words


def batch_of(task, words: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    source = with_end(words, lengths, PAD)
    return {
        "input_ids": source,
        "attention_mask": source.ne(PAD).long(),
        "labels": with_end(task(words, lengths), lengths, -100),
    }


def is_held_out(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """A fifth of all sentences, told by a checksum, so that even a short one is never met in training."""
    meant = torch.arange(LONGEST) < lengths[:, None]
    return (words * meant).sum(dim=-1) % 5 == 0


def share_reproduced(model: VanillaTransformerForConditionalGeneration, batch: dict[str, torch.Tensor]) -> float:
    """How many of the targets greedy decoding gives exactly, ends included."""
    generated = model.eval().generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], num_beams=1, max_new_tokens=LONGEST + 1
    )[:, 1:]
    generated = torch.nn.functional.pad(generated, (0, LONGEST + 1 - generated.shape[1]), value=PAD)
    expected = batch["labels"].masked_fill(batch["labels"] == -100, PAD)
    return generated.eq(expected).all(dim=-1).float().mean().item()


def fit(model: VanillaTransformerForConditionalGeneration, next_batch, num_steps: int, peak: float) -> None:
    """Adam as in §5.3, with a linear warm-up; the rate falls linearly to 0, because these runs are so short."""
    warmup = num_steps // 12
    optimizer = torch.optim.Adam(model.parameters(), lr=peak, betas=(0.9, 0.98), eps=1e-9)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (num_steps - step) / (num_steps - warmup))
    )
    model.train()
    for _ in range(num_steps):
        loss = model(**next_batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def test_a_very_small_model_learns_eight_random_pairs_by_heart():
    torch.manual_seed(0)
    model = small_model(d_model=32, num_layers=1)
    generator = torch.Generator().manual_seed(1)
    (sources, lengths), (targets, _) = random_words(8, generator), random_words(8, generator)
    pairs = batch_of(lambda words, lengths: targets, sources, lengths)
    assert share_reproduced(model, pairs) == 0.0
    fit(model, lambda: pairs, num_steps=150, peak=1e-2)
    assert share_reproduced(model, pairs) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("task", [copy, reverse])
def test_the_model_learns_to_copy_and_to_reverse_what_it_never_saw(task):
    """Takes about 45 seconds a task on one core. Three seeds of three reached 100 %, with a third fewer steps two."""
    torch.manual_seed(0)
    model = small_model(d_model=64, num_layers=2)
    generator = torch.Generator().manual_seed(1)

    def next_batch() -> dict[str, torch.Tensor]:
        words, lengths = random_words(80, generator)
        seen = ~is_held_out(words, lengths)
        return batch_of(task, words[seen], lengths[seen])

    words, lengths = random_words(2500, generator)
    held_out = is_held_out(words, lengths)
    unseen = batch_of(task, words[held_out], lengths[held_out])
    assert len(unseen["labels"]) > 400
    assert share_reproduced(model, unseen) == 0.0
    fit(model, next_batch, num_steps=1200, peak=5e-3)
    assert share_reproduced(model, unseen) == 1.0
