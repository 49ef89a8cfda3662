"""The staged models of Kämäräinen (2025), "Introduction to Sequence Modeling with Transformers" (arXiv 2502.19597).

The text builds the Transformer part by part, and shows with sequences of zeros and ones what each part is for: plain
attention collapses to a mean, token embeddings bring symbols, the causal mask makes training the same as decoding,
positions bring order, and padding puts sequences of different lengths into one batch. Every stage here is a
configuration of the model of this package, or an input that it takes for other uses as well.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel

SOS, EOS, PAD = 2, 3, 4
IGNORED = -100

# As in the text: decoding stops after so many tokens, and the learning rate falls to a tenth after so many epochs.
MAX_TOKENS = 15
MILESTONE = 1000

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
        name: what it adds to the stage before it.
        fields: of the config, where they differ from those of the stages with tokens.
        is_causal: whether a position of the target sees only those before it.
        pads: whether sequences of different lengths stand in one batch.
        takes_numbers: whether numbers go straight into encoder and decoder, without embedding and head.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_causal: bool = True
    pads: bool = False
    takes_numbers: bool = False


PLAIN = Stage("plain attention", {"d_model": 1, "position_encoding": "none"}, is_causal=False, takes_numbers=True)
TOKENS = Stage("token embeddings", {"position_encoding": "none"}, is_causal=False)
CAUSAL = Stage("causal mask", {"position_encoding": "none"})
POSITIONS = Stage("positions")
PADDING = Stage("padding", {"vocab_size": 5, "pad_token_id": PAD}, pads=True)


@dataclass(frozen=True)
class Experiment:
    """One stage, trained on the pairs of one task.

    Args:
        stage: the model.
        task: what the task is called.
        pairs: what is learned, and what is tested: the text has no others.
        epochs: updates, each on all samples.
        samples: how often each batch has the pairs, all together.
        claim: whether the text says that this is learned; None where it says nothing.
    """

    stage: Stage
    task: str
    pairs: tuple[Pair, ...]
    epochs: int
    samples: int = 100
    claim: bool | None = None


EXPERIMENTS = (
    Experiment(PLAIN, "repeat", REPEAT, 300, claim=False),
    Experiment(TOKENS, "repeat", REPEAT, 1000, claim=False),
    Experiment(TOKENS, "many to one", MANY_TO_ONE, 1000, claim=True),
    Experiment(TOKENS, "one to many", ONE_TO_MANY, 1000, claim=False),
    Experiment(CAUSAL, "many to one", MANY_TO_ONE, 2000, claim=True),
    Experiment(CAUSAL, "one to many", ONE_TO_MANY, 2000, claim=True),
    Experiment(CAUSAL, "order", ORDER, 2000, claim=False),
    Experiment(POSITIONS, "order", ORDER, 2000, claim=True),
    Experiment(PADDING, "all, as listed", ALL_AS_LISTED, 2000, samples=200),
    Experiment(PADDING, "all, as printed", ALL_AS_PRINTED, 2000, samples=200, claim=True),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment with one seed.

    Args:
        loss: of the last update: the mean squared error of numbers, or nats per token.
        outputs: what the model makes of each source of the task.
        is_learned: whether these are the targets, all of them.
    """

    loss: float
    outputs: tuple[tuple[float, ...], ...]
    is_learned: bool


def build(stage: Stage, seed: int) -> VanillaTransformerModel | VanillaTransformerForConditionalGeneration:
    """Builds the model of a stage, with the text's shape: one layer a side, one head, d_ff 8.

    Args:
        stage: which.
        seed: of the initial weights.

    Returns:
        A model for numbers of the first stage; of the others one with a head. Encoder and decoder share their
        embedding, as in the text, and the head is another matrix.
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
    model.model.decoder.embed_tokens = model.model.encoder.embed_tokens
    return model


def count_parameters(model: nn.Module) -> int:
    """Counts the parameters as the text does: without the embedding, where numbers go in.

    Args:
        model: of `build`.
    """
    is_plain = isinstance(model, VanillaTransformerModel)
    return sum(weight.numel() for name, weight in model.named_parameters() if not (is_plain and "embed" in name))


def run(experiment: Experiment, seed: int, epochs: int | None = None) -> Outcome:
    """Trains a stage on a task, and looks at what it makes of the sources it was trained on.

    Args:
        experiment: which.
        seed: of weights and dropout.
        epochs: updates, in place of the text's.

    Returns:
        What became of it.
    """
    model = build(experiment.stage, seed).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [MILESTONE], gamma=0.1)
    copies = experiment.samples // len(experiment.pairs)
    pairs = [pair for pair in experiment.pairs for _ in range(copies)]
    compute_loss = (
        _plain_loss(model, pairs) if experiment.stage.takes_numbers else _token_loss(model, experiment, pairs)
    )
    loss = torch.zeros(())
    for _ in range(experiment.epochs if epochs is None else epochs):
        loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        if experiment.stage.takes_numbers:
            outputs = tuple(_plain_output(model, source) for source, _ in experiment.pairs)
        else:
            outputs = tuple(decode(model, source, experiment.stage.is_causal) for source, _ in experiment.pairs)
    is_learned = all(
        len(output) == len(target) and all(abs(a - b) < 0.25 for a, b in zip(output, target, strict=True))
        for output, (_, target) in zip(outputs, experiment.pairs, strict=True)
    )
    return Outcome(float(loss.detach()), outputs, is_learned)


def run_all(
    seeds: Sequence[int],
    experiments: Sequence[Experiment] = EXPERIMENTS,
    epochs: int | None = None,
    processes: int = 1,
) -> Iterator[tuple[Experiment, list[Outcome]]]:
    """Runs experiments with several seeds.

    Args:
        seeds: at least one.
        experiments: which.
        epochs: updates of each, in place of the text's.
        processes: runs at a time. Each computes on one core, for which these models are small enough.

    Yields:
        Each experiment and its outcomes, in the order of the seeds, as soon as they are there.
    """
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [(each, [pool.submit(run, each, seed, epochs) for seed in seeds]) for each in experiments]
        for experiment, runs in waiting:
            yield experiment, [each.result() for each in runs]


def outcome_row(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Writes a row: stage, task, claim, how many seeds learned it, the median loss, and whether they agree.

    Args:
        experiment: which.
        outcomes: of its seeds.
    """
    claim = {None: "-", True: "learned", False: "not learned"}[experiment.claim]
    learned = sum(each.is_learned for each in outcomes)
    if experiment.claim is None:
        agrees = "-"
    elif learned in (0, len(outcomes)):
        agrees = "yes" if bool(learned) == experiment.claim else "no"
    else:
        agrees = "partly"
    loss = statistics.median(each.loss for each in outcomes)
    return [experiment.stage.name, experiment.task, claim, f"{learned} of {len(outcomes)}", f"{loss:.4f}", agrees]


def example_of(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Writes what the first seed makes of the sources of a task, such as "000 -> 1".

    Args:
        experiment: which.
        outcomes: of its seeds.
    """

    def written(numbers: Sequence[float]) -> str:
        if all(float(number).is_integer() for number in numbers):
            return "".join(str(int(number)) for number in numbers) or "nothing"
        return " ".join(f"{number:.2f}" for number in numbers)

    sides = zip(experiment.pairs, outcomes[0].outputs, strict=True)
    return ", ".join(f"{written(source)} -> {written(output)}" for (source, _), output in sides)


def decode(model: Any, source: Sequence[int], is_causal: bool = True) -> tuple[int, ...]:
    """Decodes greedily, as the text does: up to `MAX_TOKENS` tokens, of which each is read with all before it.

    Args:
        model: with a head, in eval mode.
        source: zeros and ones.
        is_causal: whether positions of the target see only those before them.

    Returns:
        The output, without the end.
    """
    input_ids = torch.tensor([[SOS, *source, EOS]])
    made = [SOS]
    while len(made) <= MAX_TOKENS:
        target = torch.tensor([made])
        logits = model(input_ids=input_ids, decoder_input_ids=target, **_visibility(target, is_causal)).logits
        token = int(logits[0, -1].argmax())
        if token == EOS:
            break
        made.append(token)
    return tuple(made[1:])


def _visibility(target: torch.Tensor, is_causal: bool) -> dict[str, Any]:
    """A mask with which each position sees the whole target; nothing where it is causal, which is the default."""
    if is_causal:
        return {}
    batch_size, length = target.shape
    return {"decoder_attention_mask": torch.ones(batch_size, 1, length, length, dtype=torch.bool)}


def _token_loss(model: Any, experiment: Experiment, pairs: Sequence[Pair]) -> Callable[[], torch.Tensor]:
    sources = [torch.tensor([SOS, *source, EOS]) for source, _ in pairs]
    labels = [torch.tensor([*target, EOS]) for _, target in pairs]
    inputs = [torch.tensor([SOS, *target]) for _, target in pairs]
    fill = PAD if experiment.stage.pads else 0  # without padding, all have one length
    source, target = (
        nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=fill) for each in (sources, inputs)
    )
    label = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    masks = _visibility(target, experiment.stage.is_causal)
    if experiment.stage.pads:
        masks |= {"attention_mask": source.ne(PAD).long(), "decoder_attention_mask": target.ne(PAD).long()}
    return lambda: model(input_ids=source, decoder_input_ids=target, labels=label, **masks).loss


def _plain_loss(model: Any, pairs: Sequence[Pair]) -> Callable[[], torch.Tensor]:
    source = torch.tensor([pair[0] for pair in pairs], dtype=torch.float32).unsqueeze(-1)
    target = torch.tensor([pair[1] for pair in pairs], dtype=torch.float32).unsqueeze(-1)
    # Each number is predicted from those before it; there is no start, as in the text.
    return lambda: nn.functional.mse_loss(_plain_forward(model, source, target[:, :-1]), target[:, 1:])


def _plain_forward(model: Any, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    masks = _visibility(target[..., 0], is_causal=False)
    return model(inputs_embeds=source, decoder_inputs_embeds=target, use_cache=False, **masks).last_hidden_state


def _plain_output(model: Any, source: Sequence[int]) -> tuple[float, ...]:
    numbers = torch.tensor([source], dtype=torch.float32).unsqueeze(-1)
    return tuple(_plain_forward(model, numbers, numbers).flatten().tolist())
