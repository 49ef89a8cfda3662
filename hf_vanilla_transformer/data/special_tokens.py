"""§5.1: the tokens that no text is made of, the same in every vocabulary that is trained here, and what ends a text."""

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from ..tokenization_ids import BOS, EOS, MASK, PAD, SENTINEL, SPECIAL_TOKENS, UNK
from ..tokenization_vanilla_transformer import VanillaTransformerTokenizer


def special_tokens_of(
    num_sentinels: int = 0, tags: Sequence[str] = (), mask_token: bool = False
) -> list[str | AddedToken]:
    """Lists the special tokens of a vocabulary in the order of their ids.

    Args:
        num_sentinels: how many of `<sentinel_0>`, `<sentinel_1>` ... there are.
        tags: tokens that may stand in front of a source, such as `<2de>`, which take the space after them along.
        mask_token: whether there is `<mask>`, which takes the space before it along.

    Returns:
        `<s>`, `<pad>`, `</s>`, `<unk>`, `<mask>`, sentinels, tags.

    Raises:
        ValueError: `num_sentinels` is negative, or a tag is one of the others.
    """
    if num_sentinels < 0:
        raise ValueError(f"`num_sentinels`={num_sentinels} is negative")
    sentinels = map(SENTINEL.format, range(num_sentinels))
    masks = [AddedToken(MASK, lstrip=True, normalized=False, special=True)] if mask_token else []
    tokens: list[str | AddedToken] = [*SPECIAL_TOKENS, *masks, *sentinels]
    for tag in tags:
        if tag in (*SPECIAL_TOKENS, MASK) or tag.startswith(SENTINEL.partition("{}")[0]):  # or may be a sentinel
            raise ValueError(f"{tag!r} cannot be a tag: it is a control token")
        if any(map(str.isspace, tag)) or not any(map(str.isalnum, tag)) or tag.isalnum():
            # What has letters or signs only, text could spell, and would be read as the tag.
            raise ValueError(f"{tag!r} cannot be a tag: it must have letters and signs, as <2de> has, and no space")
    unique = list(dict.fromkeys(tags))
    return [*tokens, *(AddedToken(tag, rstrip=True, normalized=False, special=True) for tag in unique)]


def wrap_backend(
    backend: Tokenizer,
    special_tokens: Sequence[str | AddedToken],
    model_max_length: int | None = None,
    target_side: dict[str, Any] | None = None,
    decoded_form: str | None = None,
) -> PreTrainedTokenizerFast:
    """Makes a transformers tokenizer that ends every text with `</s>`.

    Args:
        backend: has all tokens.
        special_tokens: as `special_tokens_of` lists them.
        model_max_length: tokens of the longest input, for `truncation=True`.
        target_side: as of `VanillaTransformerTokenizer`, and so is the next.
        decoded_form: likewise.

    Returns:
        One of a class of transformers, which loads anywhere, where that can do it: for a vocabulary without tags that
        cuts source and target alike and changes no text. Else one of this package.
    """
    eos = (EOS, SPECIAL_TOKENS.index(EOS))
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B:1 {EOS}:1", special_tokens=[eos]
    )
    options: dict[str, Any] = {} if model_max_length is None else {"model_max_length": model_max_length}
    masks = [token for token in special_tokens if str(token) == MASK]
    if masks:
        options["mask_token"] = masks[0]
    others = [token for token in special_tokens[len(SPECIAL_TOKENS) :] if token not in masks]
    if others:
        options["extra_special_tokens"] = list(map(str, others))
    tokenizer_class = PreTrainedTokenizerFast
    if target_side or decoded_form or any(isinstance(token, AddedToken) for token in others):
        tokenizer_class = VanillaTransformerTokenizer
        options |= {"target_side": target_side, "decoded_form": decoded_form}
    return tokenizer_class(
        tokenizer_object=backend,
        bos_token=BOS,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **options,
    )


__all__ = ["special_tokens_of", "wrap_backend"]
