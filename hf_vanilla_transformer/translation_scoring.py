"""§6.1 by forced decoding: the log-probability of each token of a given translation, and the attention."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from .loss import IGNORED_LABEL

# Maximum number of logits in memory at one time (256 MiB of float32); a single sentence may have more.
_MAX_LOGITS = 2**26


def forced_log_probs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, labels: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each token of given translations, each given the source and the tokens before it.

    The model runs in its current mode: put it in eval mode first. Gradients are kept if they are enabled.

    Args:
        model: a sequence-to-sequence model, or an ensemble.
        input_ids: (B, S) source tokens; or frames or images, if the model reads them.
        attention_mask: (B, S), non-zero for tokens; None lets the model derive it.
        labels: (B, T) target tokens, with `</s>` but without the start token; -100 as padding.

    Returns:
        (B, T) in float32, in nats; 0 at padding.

    Raises:
        ValueError: the model's config has no `decoder_start_token_id`.
    """
    return forced_pass(model, input_ids, attention_mask, shift_right(model, labels), labels)[0]


def forced_pass(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    decoder_input_ids: torch.Tensor,
    labels: torch.Tensor,
    with_attention: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probability of each token of given translations and, on request, the cross-attention behind it.

    Args:
        model: a sequence-to-sequence model, or an ensemble; run in its current mode.
        input_ids: (B, S) source tokens; or frames or images, if the model reads them.
        attention_mask: (B, S), non-zero for tokens, or None.
        decoder_input_ids: (B, T) decoder input, with any token as padding on the right.
        labels: (B, T) tokens to predict; -100 as padding.
        with_attention: whether to return the result of `alignment_attention` too.

    Returns:
        Log-probabilities (B, T) in float32, 0 at padding, and the attention (B, T, S), or None.

    Raises:
        ValueError: attention was requested from a model that returns none. Models of this package return it with any
            attention implementation.
    """
    vocab_size = int(model.config.vocab_size)
    rows = max(1, _MAX_LOGITS // max(1, labels.shape[1] * vocab_size))
    parts: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    source = getattr(model, "main_input_name", "input_ids")
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        outputs = model(
            **{source: input_ids[part]},
            attention_mask=None if attention_mask is None else attention_mask[part],
            decoder_input_ids=decoder_input_ids[part],
            use_cache=False,
            output_attentions=with_attention,
            return_dict=True,
        )
        log_probs = _chosen(outputs.logits, labels[part])
        if with_attention and not outputs.cross_attentions:
            raise ValueError(
                f"a {type(model).__name__} with `attn_implementation`={model.config._attn_implementation!r} returns no "
                "attention; load it with attn_implementation='eager', or call model.set_attn_implementation('eager')"
            )
        parts.append((log_probs, alignment_attention(outputs.cross_attentions) if with_attention else None))
    attention = [each for _, each in parts if each is not None]
    return torch.cat([each for each, _ in parts]), torch.cat(attention) if with_attention else None


def alignment_attention(cross_attentions: Sequence[torch.Tensor]) -> torch.Tensor:
    """The cross-attention (§3.2.3) that serves as alignment: the mean over the heads of the second-to-last layer.

    The last layer prepares the next token, while the one before still looks at the word being translated. If there is
    only one layer, that one is used.

    Args:
        cross_attentions: of each layer, (B, H, T, S).

    Returns:
        (B, T, S) in float32; sums to 1 over the source.
    """
    return cross_attentions[max(0, len(cross_attentions) - 2)].float().mean(1)


def shift_right(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """The decoder input for predicting labels: "outputs (shifted right)" of Figure 1.

    Args:
        model: its config names the start token.
        labels: (B, T); -100 as padding.

    Returns:
        (B, T): the start token, and all labels but the last. Padding is `<pad>`.

    Raises:
        ValueError: the config has no `decoder_start_token_id`.
    """
    start = model.config.decoder_start_token_id
    if start is None:
        raise ValueError(
            f"the config of this {type(model).__name__} has `decoder_start_token_id`=None, so its decoder cannot "
            "begin; set it to the id of the token that starts a translation"
        )
    padding = start if model.config.pad_token_id is None else model.config.pad_token_id
    return shifted_labels(labels, start, padding)


def shifted_labels(labels: torch.Tensor, start: int, padding: int) -> torch.Tensor:
    """Figure 1 "Outputs (shifted right)": the start token, and all labels (B, T) but the last; `padding` for -100."""
    shifted = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED_LABEL, padding)


def _chosen(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits, is_padding = logits.float(), labels.eq(IGNORED_LABEL)
    chosen = logits.gather(-1, labels.masked_fill(is_padding, 0).unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(-1)).masked_fill(is_padding, 0.0)
