"""§6.1 as a pipeline: `pipeline("translation")`, which transformers 5 no longer has; saved with checkpoints."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from .configuration_variants import require_tokens
from .translation_batches import TorchEngine, Translation, translate_pieces
from .translation_pieces import max_source_length, source_pieces

_ASKED = ("return_scores", "return_tokens", "return_alignments")


class TranslationPipeline(Pipeline):
    """Text in, translations out (§6.1), with any sequence-to-sequence model.

    The model's `generation_config` decides how it decodes: a model of this package uses the paper's beam search. All
    arguments of `model.generate()` are accepted, here for all calls or in a call for that one.

    A sentence without a visible character gets an empty translation, and the model does not run. One with more tokens
    than the model has learned positions is translated in pieces, never truncated; sinusoids have no limit.

    Args:
        model: the model, or an ensemble. It is put in eval mode once, now; a call refuses a model that was put back
            into training mode.
        tokenizer: its tokenizer.
        batch_size: sentences decoded at a time, in their order; 1 by default.
        device: as in any pipeline: by default the first accelerator, else the CPU.
        **kwargs: other arguments of a pipeline; `return_scores`, `return_tokens` and `return_alignments`, see
            `__call__`; arguments of `generate()`.

    Raises:
        TypeError: the model is a name, or there is no tokenizer.
        ValueError: the model is not a sequence-to-sequence model, or does not read text.

    Example:
        >>> translator = TranslationPipeline(model=model, tokenizer=tokenizer)
        >>> translator("A dog runs.")
        [{'translation_text': 'Ein Hund rennt.'}]
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, **kwargs: Any) -> None:
        if isinstance(model, str):
            raise TypeError(
                f"model={model!r} is a name; load it with AutoModelForSeq2SeqLM.from_pretrained, or let "
                f'pipeline("translation", model={model!r}) do it'
            )
        if tokenizer is None:
            raise TypeError("tokenizer=None, but sentences have to be tokenised; give the tokenizer of the model")
        if not model.config.is_encoder_decoder:
            raise ValueError(f"a {type(model).__name__} is no sequence-to-sequence model, so it cannot translate")
        require_tokens(model.config, "translation")
        kwargs["task"] = kwargs.get("task") or "translation"
        super().__init__(model=model.eval(), tokenizer=tokenizer, **kwargs)
        # pipeline() leaves classes in here, and the config could then not be saved or printed.
        for info in getattr(model.config, "custom_pipelines", {}).values():
            info["pt"] = [getattr(each, "__name__", each) for each in info.get("pt", ())]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Translates text.

        Args:
            inputs: a sentence; a list of them; or a dataset, a column of one, a generator, or any other iterable, which
                is read and translated step by step. A row of a dataset may be a dict, if it has a single field.
            *args: none.
            **kwargs: for this call: `batch_size`; `num_workers`; `tag`, the tags to put before each sentence for a
                model that has learned them, such as "2de" for the token `<2de>`; `return_scores`, which adds `score`
                and `log_prob`; `return_tokens`, which adds `source_tokens` and `tokens`; `return_alignments`, which
                adds these and `alignment`, pairs of indices into them (`Translation` explains all of these); arguments
                of `generate()`, such as `num_beams`, and `num_return_sequences` for n-best lists.

        Returns:
            For a sentence, a list of `{"translation_text": ...}`, the best first; sampled without beams, in the order
            drawn. For a list, a list of such dicts, or of such lists if a sentence has more than one. For anything
            else, an iterator over such lists.

        Raises:
            TypeError: an input is not text.
            ValueError: an input is not valid Unicode, or a row of several fields; or the tokenizer has no such tag.
        """
        if isinstance(inputs, str):
            return super().__call__(inputs, *args, **kwargs)
        if isinstance(inputs, list | tuple):
            results = super().__call__(list(inputs), *args, **kwargs) if inputs else []
            return [result[0] for result in results] if all(len(result) == 1 for result in results) else results
        # A pandas series has positions too, but finds rows by label; a table iterates over its column names.
        has_labels, has_columns = hasattr(inputs, "iloc"), getattr(inputs, "ndim", 1) != 1
        has_places = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__") and not has_labels
        if isinstance(inputs, dict | bytes) or has_columns or not (has_places or isinstance(inputs, Iterable)):
            raise TypeError(f"cannot translate {inputs!r:.80}, a {type(inputs).__name__}; give a str or many of them")
        if has_places:
            return super().__call__(_Rows(inputs), *args, **kwargs)
        return super().__call__((each for each in inputs), *args, **kwargs)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(model={type(self.model).__name__}, tokenizer={type(self.tokenizer).__name__}, "
            f"device={str(self.device)!r}, dtype={self.dtype}, options={self._forward_params})"
        )

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        asked = {name: bool(kwargs.pop(name)) for name in _ASKED if name in kwargs}
        tag = {"tag": kwargs.pop("tag")} if "tag" in kwargs else {}
        return tag, {**kwargs, **asked}, asked

    def preprocess(self, input_: Any, tag: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Tokenises a sentence; "pieces" are its token ids, in as many pieces as the model needs, usually one."""
        if isinstance(input_, dict):
            if len(input_) != 1:
                raise ValueError(
                    f"a row with the fields {list(input_)} does not say which of them to translate; give one column, "
                    'such as dataset["en"] or KeyDataset(dataset, "en")'
                )
            (input_,) = input_.values()
        (pieces,) = source_pieces(self.tokenizer, [input_], max_source_length(self.model), tag)
        return {"sentence": input_, "pieces": pieces}

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        asked = {name: options.pop(name, False) for name in _ASKED}
        is_batch = isinstance(model_inputs["sentence"], list)
        sentences = model_inputs["pieces"] if is_batch else [model_inputs["pieces"]]
        translations = translate_pieces(
            TorchEngine(self.model, self.tokenizer),
            sentences,
            lambda lengths: _batches_in_order(len(lengths), len(sentences)),
            options,
            asked["return_scores"],
            asked["return_tokens"] or asked["return_alignments"],
        )
        return {"translations": translations if is_batch else translations[0]}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_scores: bool = False,
        return_tokens: bool = False,
        return_alignments: bool = False,
    ) -> list[dict[str, Any]]:
        """Turns the translations of a sentence into dicts of the requested fields."""
        names = ["score", "log_prob"] if return_scores else []
        names += ["source_tokens", "tokens"] if return_tokens or return_alignments else []
        names += ["alignment"] if return_alignments else []
        translations: list[Translation] = model_outputs["translations"]
        return [
            {"translation_text": each.text, **{name: _listed(getattr(each, name)) for name in names}}
            for each in translations
        ]


class _Rows(Dataset):
    """Dataset for a pipeline from anything with a length and positions: rows are read one by one and counted."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def _batches_in_order(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
