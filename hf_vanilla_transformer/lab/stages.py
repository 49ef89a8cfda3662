"""The staged models of Kämäräinen (2025), "Introduction to Sequence Modeling with Transformers" (arXiv 2502.19597).

The text builds the Transformer part by part, and shows with sequences of zeros and ones what each part is for: plain
attention collapses to a mean, token embeddings bring symbols, the causal mask makes training the same as decoding,
positions bring order, and padding puts sequences of different lengths into one batch. Every stage here is a
configuration of the model of this package, or an input that it takes for other uses as well. `stage_runs` trains them,
and `stage_table` sets what comes out beside what the text says.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel

SOS, EOS, PAD = 2, 3, 4

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def _pairs(*written: str) -> tuple[Pair, ...]:
    """Parses "000 1" and the like."""
    sides = ([tuple(map(int, side)) for side in each.split()] for each in written)
    return tuple((source, target) for source, target in sides)


# The tasks of the text, by the names under which the table has them.
REPEAT = _pairs("0000 0000", "1111 1111")
MANY_TO_ONE = _pairs("000 1", "111 0")
ONE_TO_MANY = _pairs("1 000", "0 111")
ORDER = _pairs("0101 0101", "1010 1010")
# The text contradicts itself: its list of all tasks inverts the first two, and its printed results repeat them.
ALL_AS_LISTED = _pairs("0000 1111", "1111 0000") + MANY_TO_ONE + ONE_TO_MANY + ORDER
ALL_AS_PRINTED = REPEAT + MANY_TO_ONE + ONE_TO_MANY + ORDER


@dataclass(frozen=True)
class Stage:
    """A model of the text.

    Args:
        name: what it is called.
        adds: what it has that the stage before it has not.
        fields: of the config, where they differ from those of the stages with tokens.
        is_causal: whether a position of the target sees only those before it.
        pads: whether sequences of different lengths stand in one batch.
        takes_numbers: whether numbers go straight into encoder and decoder, without embedding and head.
    """

    name: str
    adds: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_causal: bool = True
    pads: bool = False
    takes_numbers: bool = False


_NO_ORDER = {"position_encoding": "none"}
PLAIN = Stage("plain", "attention", {"d_model": 1, **_NO_ORDER}, is_causal=False, takes_numbers=True)
TOKENS = Stage("tokens", "token embeddings and a head", _NO_ORDER, is_causal=False)
CAUSAL = Stage("causal", "the causal mask", _NO_ORDER)
POSITIONS = Stage("positions", "the position encoding")
PADDING = Stage("padding", "padding and its mask", {"vocab_size": 5, "pad_token_id": PAD}, pads=True)
STAGES = {each.name: each for each in (PLAIN, TOKENS, CAUSAL, POSITIONS, PADDING)}


@dataclass(frozen=True)
class Experiment:
    """One stage, trained on the pairs of one task.

    Args:
        stage: the model.
        task: what the task is called.
        pairs: what is learned, and what is tested: the text has no others.
        epochs: updates, each on all samples.
        samples: how often each batch has the pairs, all together.
        claim: whether the text says that this is learned.
        claimed_loss: of the last update, as the text has it; None where it has none for this task alone.
        remark: what is to be known about the claim, such as why it holds or does not.
    """

    stage: Stage
    task: str
    pairs: tuple[Pair, ...]
    epochs: int
    claim: bool
    samples: int = 100
    claimed_loss: float | None = None
    remark: str = ""


_PLAIN_REMARK = (
    "True for another reason than the text's, which is that nothing in the model is non-linear: its last norm is over "
    "one number, which is its own mean, so the output is a bias, whatever comes in."
)
_FUTURE_REMARK = (
    "The text says that a single output token has no future. It has: in training the first position sees the answer "
    "after it, and a seed may come to rely on that. Its loss is low then, and it fails when it has to decode."
)
_LIST_REMARK = "The text lists 0000 → 1111 and 1111 → 0000 among these, but prints the results of the next row."

EXPERIMENTS = (
    Experiment(PLAIN, "repeat", REPEAT, 300, claim=False, claimed_loss=0.25, remark=_PLAIN_REMARK),
    Experiment(TOKENS, "repeat", REPEAT, 1000, claim=False),
    Experiment(TOKENS, "many to one", MANY_TO_ONE, 1000, claim=True, claimed_loss=0.0013, remark=_FUTURE_REMARK),
    Experiment(TOKENS, "one to many", ONE_TO_MANY, 1000, claim=False, claimed_loss=0.4825),
    Experiment(CAUSAL, "many to one", MANY_TO_ONE, 2000, claim=True),
    Experiment(CAUSAL, "one to many", ONE_TO_MANY, 2000, claim=True),
    Experiment(CAUSAL, "order", ORDER, 2000, claim=False),
    Experiment(POSITIONS, "order", ORDER, 2000, claim=True, claimed_loss=0.0088),
    Experiment(PADDING, "all, as listed", ALL_AS_LISTED, 2000, claim=True, samples=200, remark=_LIST_REMARK),
    Experiment(PADDING, "all, as printed", ALL_AS_PRINTED, 2000, claim=True, samples=200, claimed_loss=0.1117),
)


def build(stage: Stage, seed: int) -> VanillaTransformerModel | VanillaTransformerForConditionalGeneration:
    """Builds the model of a stage, with the text's shape: one layer a side, one head, d_ff 8.

    Args:
        stage: which.
        seed: of the initial weights.

    Returns:
        A model for numbers of the first stage; of the others one with a head. Encoder and decoder share their
        embedding, as in the text, which begins with its numbers from N(0, 1), and the head is another matrix.
    """
    torch.manual_seed(seed)
    shape = {"d_model": 8, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 1, "d_ff": 8}
    # As torch.nn.Transformer has them, which the text uses.
    like_torch: dict[str, Any] = {
        "norm_position": "pre",
        "attention_bias": True,
        "final_logits_bias": True,
        "layer_norm_eps": 1e-5,
    }
    like_torch |= dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.1)
    tokens: dict[str, Any] = {"vocab_size": 4, "bos_token_id": SOS, "decoder_start_token_id": SOS, "eos_token_id": EOS}
    tokens |= {"pad_token_id": None, "tie_word_embeddings": False, "label_smoothing": 0.0}
    config = VanillaTransformerConfig(**{**shape, **like_torch, **tokens, **stage.fields})
    if stage.takes_numbers:
        return VanillaTransformerModel(config)
    model = VanillaTransformerForConditionalGeneration(config)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    model.model.decoder.embed_tokens = embedding
    # As torch.nn.Embedding begins, which the text uses; our models begin with sqrt(d_model) times smaller vectors.
    nn.init.normal_(embedding.weight)
    return model


def count_parameters(model: nn.Module) -> int:
    """Counts the parameters as the text does: without the embedding, where numbers go in.

    Args:
        model: of `build`.

    Returns:
        How many numbers are learned.
    """
    is_plain = isinstance(model, VanillaTransformerModel)
    return sum(weight.numel() for name, weight in model.named_parameters() if not (is_plain and "embed" in name))
