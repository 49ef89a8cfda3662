"""The pictures that explain the paper, each computed by the classes that train real models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..attention import MultiHeadAttention, scaled_dot_product_attention
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..loss import IGNORED_LABEL, label_smoothed_cross_entropy
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..training.schedule import inverse_sqrt_factor, peak_learning_rate
from .attention_maps import recorded_masks
from .charts import new_chart
from .drawing import draw_matrix, label_tokens
from .heads import KINDS
from .plots_positions import plot_position_products, plot_shift_rotation, plot_sinusoids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The vocabulary of the examples: special tokens first, by their ids.
_WORDS = ("<s>", "<pad>", "</s>", "<unk>", "a", "dog", "runs", "fast", "ein", "Hund", "rennt", "schnell")
_LONG = ("a", "dog", "runs", "fast"), ("ein", "Hund", "rennt", "schnell")
_SHORT = ("dog", "runs"), ("Hund", "rennt")


def toy_model(**fields: object) -> VanillaTransformerForConditionalGeneration:
    """Makes a small untrained model, always with the same weights: two layers a side, D = 64, four heads.

    Args:
        **fields: of its config that are to have other values.
    """
    shape = {"d_model": 64, "num_heads": 4, "d_ff": 128, "num_encoder_layers": 2, "num_decoder_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = VanillaTransformerConfig(vocab_size=len(_WORDS), **{**shape, **fields})
        return VanillaTransformerForConditionalGeneration(config).eval()


def plot_masks() -> Figure:
    """Draws which positions a model masks, for a batch of a long sentence and a short one with padding.

    The masks are those that the model gives to its first layers, recorded while it runs.

    Returns:
        The figure: both sentences, three kinds of attention.
    """
    model = toy_model()
    sources = [[*source, "</s>"] for source, _ in (_LONG, _SHORT)]
    targets = [["<s>", *target] for _, target in (_LONG, _SHORT)]
    source_ids, source_mask = _padded(sources)
    target_ids, target_mask = _padded(targets)
    with recorded_masks(model) as masks, torch.no_grad():
        model(source_ids, source_mask, target_ids, target_mask, output_attentions=True, use_cache=False)
    figure = new_chart(11, 7.4)
    panels = figure.subplots(2, len(KINDS))
    for row, of in zip(panels, range(2), strict=True):
        read, written = ([_WORDS[index] for index in ids[of].tolist()] for ids in (source_ids, target_ids))
        for axes, (kind, title) in zip(row, KINDS.items(), strict=True):
            rows, columns = (read if kind == "encoder" else written), (written if kind == "decoder" else read)
            mask = masks[kind].expand(-1, len(rows), -1)[of]
            draw_matrix(axes, mask.float(), mask, cmap="Blues", vmin=0, vmax=1.6)
            label_tokens(axes, rows, columns)
            # Lines between the cells, which all have one of two colours.
            axes.set_xticks([each - 0.5 for each in range(1, len(columns))], minor=True)
            axes.set_yticks([each - 0.5 for each in range(1, len(rows))], minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="minor", length=0)
            axes.set_title(title, fontsize=10)
            if kind == "encoder":
                axes.set_ylabel(("sentence without padding", "sentence with padding")[of])
    figure.suptitle("blue: a row may attend to the column; grey: masked")
    return figure


def plot_learning_rate(
    shapes: Sequence[tuple[int, int]] = ((512, 4000), (512, 8000), (256, 4000)), updates: int = 20000
) -> Figure:
    """Draws the learning rate of Equation 3 over updates.

    Args:
        shapes: pairs of d_model and updates of warm-up.
        updates: how far to draw.

    Returns:
        The figure.
    """
    figure = new_chart(7, 4)
    axes = figure.subplots()
    steps = range(1, updates + 1, max(1, updates // 1000))
    for d_model, warmup in shapes:
        peak = peak_learning_rate(d_model, warmup)
        rates = [peak * inverse_sqrt_factor(step, warmup) for step in steps]
        axes.plot(steps, rates, label=f"d_model {d_model}, warm-up {warmup:,}: peak {peak:.1e}")
    axes.set(title="§5.3: learning rate", xlabel="update", ylim=(0, None))
    axes.legend(fontsize=9)
    return figure


def smoothed_targets(labels: torch.Tensor, vocab_size: int, epsilon: float) -> torch.Tensor:
    """The distribution that the loss of §5.4 trains towards, read from the gradient of the loss, which is p - q.

    Args:
        labels: (N,) token ids, -100 where nothing is to be predicted.
        vocab_size: V.
        epsilon: epsilon_ls.

    Returns:
        (N, V) q: rows sum to 1, and to 0 where nothing is to be predicted.
    """
    logits = torch.zeros(len(labels), vocab_size, dtype=torch.float64, requires_grad=True)
    loss, _ = label_smoothed_cross_entropy(logits, labels, epsilon)
    (gradient,) = torch.autograd.grad(loss, logits)
    return (logits.softmax(-1) * labels.ne(IGNORED_LABEL).unsqueeze(-1) - gradient).detach()


def plot_label_smoothing(epsilon: float = 0.1) -> Figure:
    """Draws the smoothed targets of a sentence, and what the loss says about a model that is ever more certain.

    Args:
        epsilon: epsilon_ls.

    Returns:
        The figure.
    """
    words = [*_LONG[1], "</s>", "<pad>"]
    labels = torch.tensor([IGNORED_LABEL if word == "<pad>" else _WORDS.index(word) for word in words])
    targets = smoothed_targets(labels, len(_WORDS), epsilon)
    figure = new_chart(12, 4.2)
    heat, curve = figure.subplots(1, 2, width_ratios=[3, 2])
    has_loss = labels.ne(IGNORED_LABEL).unsqueeze(-1).expand_as(targets)
    draw_matrix(heat, targets, has_loss, cmap="Blues", vmin=0, vmax=1.2)
    label_tokens(heat, words, _WORDS)
    for row, word in enumerate(words):
        for column, value in enumerate(targets[row].tolist()):
            if word != "<pad>":
                heat.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=7,
                          color="white" if value > 0.6 else "black")  # fmt: skip
    heat.set(title=f"what is predicted (rows), and the target for it: epsilon = {epsilon}; grey: no loss",
             xlabel="vocabulary")  # fmt: skip
    certainties = torch.linspace(0.05, 0.9999, 500, dtype=torch.float64)
    for each in (0.0, epsilon):
        curve.plot(certainties, [_loss_of_certainty(float(p), len(_WORDS), each) for p in certainties],
                   label=f"epsilon = {each:g}")  # fmt: skip
    curve.set(title="loss by the probability of the right word", xlabel="p(right word), the rest spread evenly",
              ylabel="nats", ylim=(0, 3))  # fmt: skip
    curve.legend()
    return figure


def dot_product_statistics(d_k: int, samples: int = 4000, keys: int = 16) -> dict[str, float]:
    """What 1/sqrt(d_k) does to queries and keys whose numbers are independent, with mean 0 and variance 1.

    Args:
        d_k: width of a head.
        samples: queries.
        keys: that each query attends over.

    Returns:
        The variance of the scores, `variance` and `scaled_variance`; and `slope` and `scaled_slope`, the mean trace of
        the softmax's Jacobian, 1 - sum(p^2): the gradient that passes through the softmax.
    """
    attention = MultiHeadAttention(VanillaTransformerConfig(d_model=d_k, num_heads=1)).eval()
    generator = torch.Generator().manual_seed(d_k)
    query = torch.randn(samples, 1, 1, d_k, generator=generator)
    key = torch.randn(samples, 1, keys, d_k, generator=generator)
    found = {}
    for prefix, scaling in (("", 1.0), ("scaled_", attention.scaling)):
        found[f"{prefix}variance"] = float((query @ key.transpose(-1, -2) * scaling).var())
        _, weights = scaled_dot_product_attention(attention, query, key, key, None, scaling)
        found[f"{prefix}slope"] = float((1 - weights.square().sum(-1)).mean())
    return found


def plot_scaling(widths: Sequence[int] = (2, 4, 8, 16, 32, 64, 128, 256)) -> Figure:
    """Draws the variance of dot products and the gradient through the softmax by d_k, with and without 1/sqrt(d_k).

    Args:
        widths: values of d_k.

    Returns:
        The figure.
    """
    found = [dot_product_statistics(d_k) for d_k in widths]
    figure = new_chart(11, 4)
    variances, slopes = figure.subplots(1, 2)
    for prefix, label in (("", "q · k"), ("scaled_", "q · k / sqrt(d_k)")):
        variances.plot(widths, [each[f"{prefix}variance"] for each in found], "o-", label=label)
        slopes.plot(widths, [each[f"{prefix}slope"] for each in found], "o-", label=label)
    variances.plot(widths, widths, "k:", label="d_k, as §3.2.1 says")
    variances.set(title="variance of the scores", xlabel="d_k", xscale="log", yscale="log")
    slopes.set(title="gradient through the softmax over 16 keys: 1 - sum of p²", xlabel="d_k")
    slopes.set(xscale="log", ylim=(0, 1))
    for axes in (variances, slopes):
        axes.set_xticks(widths, [str(each) for each in widths])
        axes.minorticks_off()
        axes.legend(fontsize=9)
    return figure


def normalised_activations(
    model: VanillaTransformerForConditionalGeneration, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the first layer norm of an encoder gets and makes of it, and what batch norm would make of the same.

    Args:
        model: of this package.
        input_ids: (B, S) source tokens.
        attention_mask: (B, S), non-zero for tokens.

    Returns:
        "activations", "layer norm" and "batch norm": (tokens, D) each, without padding. Both norms without gain and
        bias; batch norm takes its statistics from these tokens, as in training.
    """
    norm = model.get_encoder().layers[0].self_attention_norm
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        with torch.no_grad():
            model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
    finally:
        handle.remove()
    activations = seen[0][attention_mask.bool()]
    width = activations.shape[-1]
    layer_norm = nn.LayerNorm(width, eps=norm.eps, elementwise_affine=False)
    batch_norm = nn.BatchNorm1d(width, eps=norm.eps, affine=False).train()
    return {"activations": activations, "layer norm": layer_norm(activations), "batch norm": batch_norm(activations)}


def plot_norms() -> Figure:
    """Draws the activations of a sentence in a batch before and after layer norm, and after batch norm.

    Returns:
        The figure: three heat maps, and how much each norm changes the sentence if another one joins its batch.
    """
    model = toy_model()
    first, second = [*_LONG[0], "</s>"], [*_LONG[0][::-1] * 2, "</s>"]
    (ids, mask), (alone, its_mask) = _padded([first, second]), _padded([first])
    together, single = normalised_activations(model, ids, mask), normalised_activations(model, alone, its_mask)
    words = [_WORDS[index] for index in ids[mask.bool()].tolist()]
    figure = new_chart(13, 4.8)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (name, values) in zip(panels, together.items(), strict=True):
        image = draw_matrix(axes, values, cmap="RdBu_r", vmin=-3, vmax=3)
        label_tokens(axes, words, None)
        means = ", ".join(
            f"{of} {float(values.mean(axis).abs().max()):.1g}" for of, axis in (("a token", 1), ("a feature", 0))
        )
        changed = float((values[: len(alone[0])] - single[name]).abs().max())
        change = f"change if the second sentence joins: {changed:.1g}"
        axes.set_title(f"{name}\nlargest |mean| of {means}\n{change}", fontsize=9)
        axes.set_xlabel("feature")
        axes.axhline(len(alone[0]) - 0.5, color="black", linewidth=1)
    figure.colorbar(image, ax=panels)
    return figure


def paper_pictures() -> dict[str, Figure]:
    """Draws all of them.

    Returns:
        Figures by name.
    """
    return {
        "sinusoids": plot_sinusoids(),
        "position-products": plot_position_products(),
        "shift-rotation": plot_shift_rotation(),
        "masks": plot_masks(),
        "scaling": plot_scaling(),
        "norms": plot_norms(),
        "learning-rate": plot_learning_rate(),
        "label-smoothing": plot_label_smoothing(),
    }


def _padded(sentences: Sequence[Sequence[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L) of `_WORDS` with padding on the right, and their mask."""
    rows = [torch.tensor([_WORDS.index(word) for word in words]) for words in sentences]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=_WORDS.index("<pad>"))
    return ids, ids.ne(_WORDS.index("<pad>")).long()


def _loss_of_certainty(p: float, vocab_size: int, epsilon: float) -> float:
    """The loss of a prediction that gives the right word p, and the others equal shares of the rest."""
    probabilities = torch.full((1, vocab_size), (1 - p) / (vocab_size - 1), dtype=torch.float64)
    probabilities[0, 0] = p
    return float(label_smoothed_cross_entropy(probabilities.log(), torch.tensor([0]), epsilon)[0])
