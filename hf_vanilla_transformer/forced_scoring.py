"""§6.1 the other way round: what a model thinks of a given translation, token by token, and where it looked."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from .loss import IGNORED_LABEL

# Numbers in the logits that exist at one time, at most (256 MiB of float32); a single sentence may have more.
_MAX_LOGITS = 2**26


def forced_log_probs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, labels: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each token of given translations, each given the source and the tokens before it.

    The model is asked in the mode it is in: put it in eval mode first. Gradients are kept where they are enabled.

    Args:
        model: a sequence-to-sequence model, or an ensemble.
        input_ids: (B, S) source tokens.
        attention_mask: (B, S), non-zero for tokens; None leaves the model to derive it.
        labels: (B, T) target tokens without the start token, `</s>` among them; -100 as padding.

    Returns:
        (B, T) in float32, in nats; 0 where padding.

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
    """Log-probability of each token of given translations and, on request, what the decoder attended to before it.

    Args:
        model: a sequence-to-sequence model, or an ensemble; asked in the mode it is in.
        input_ids: (B, S) source tokens.
        attention_mask: (B, S), non-zero for tokens, or None.
        decoder_input_ids: (B, T) what the decoder reads, any token as padding on the right.
        labels: (B, T) what it is to predict; -100 as padding.
        with_attention: whether to return the attention too, as `alignment_attention` makes it.

    Returns:
        Log-probabilities (B, T) in float32, 0 where padding, and the attention (B, T, S), or None.

    Raises:
        ValueError: the attention is wanted of a model that returns none. Those of this package return it whatever their
            attention implementation.
    """
    vocab_size = int(model.config.vocab_size)
    rows = max(1, _MAX_LOGITS // max(1, labels.shape[1] * vocab_size))
    parts: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        outputs = model(
            input_ids=input_ids[part],
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
    """The attention over the source (§3.2.3) that is taken for an alignment: the last layer but one, mean of its heads.

    The last layer prepares the next token, while the one before still looks at the word being translated. Where
    there is only one layer, it is that one.

    Args:
        cross_attentions: of each layer, (B, H, T, S).

    Returns:
        (B, T, S) in float32; sums to 1 over the source.
    """
    return cross_attentions[max(0, len(cross_attentions) - 2)].float().mean(1)


def shift_right(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to predict labels: "outputs (shifted right)" of Figure 1.

    Args:
        model: its config says what the start token is.
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
