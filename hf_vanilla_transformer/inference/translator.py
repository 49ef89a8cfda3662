"""One translator, two engines: torch, which has every option, and CTranslate2, several times as fast on a CPU."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from ..interop.ctranslate2 import QUANTIZATIONS, require_ctranslate2_support
from ..translation_batches import Engine, TorchEngine, Translation
from .conversions import conversion_of
from .devices import choose_device
from .engine_ctranslate2 import CTranslate2Engine
from .engine_options import plan_search
from .loading import ADAPTER_CONFIG, LOADED_FILES, load_config, load_tokenizer, load_translator
from .shipped import place_of_model
from .translation import search_options, translate, translate_with_details

logger = logging.get_logger(__name__)

ENGINES = ("auto", "torch", "ctranslate2")

# Arguments of `translate_with_details` that are no options of a search.
_NOT_OF_THE_SEARCH = {"batch_size", "batch_tokens", "read_ahead", "tag", "nbest", "scores", "alignments"}


class Translator:
    """Translates text with a checkpoint, by the engine that is asked for. Several threads may share a translator.

    Both engines give the same results contract: translations one for one and in order, n-best lists, the score by the
    length penalty of §6.1, log-probabilities, alignments, the limit of 50 tokens more than the source, and pieces of
    what is too long for learned positions. Where the best translation differs at all, CTranslate2 has ended its search
    earlier or rounded otherwise (`CTranslate2Engine`); with int8, weights are rounded too. Because of this, commands
    use torch unless told, so that published figures stay reproducible, and a translator for programs is "auto".

    Args:
        folders: of a checkpoint, or its name, as `load_translator` takes it; or of several, as an ensemble.
        engine: "torch", which has every option; "ctranslate2"; or "auto", which takes CTranslate2 if its package is
            installed, the device is the CPU, nothing is asked that it lacks, and its conversion can be written, else
            torch. If a later call asks for what CTranslate2 lacks, "auto" loads torch's model for that call.
        device: where to compute, as `load_translator` takes it. CTranslate2 is for the CPU only.
        dtype: of the weights. CTranslate2 is for float32 only.
        quantization: "float32", or "int8" for CTranslate2 when that engine is asked for by name.
        asked: options of `translate_with_details` that calls will have, such as `nbest` or `num_beams`, as far as they
            are known: "auto" chooses by them too.
        longest_source: tokens of the longest source of calls, as far as it is known: CTranslate2 is made ready for it
            now, and not when it comes.

    Attributes:
        engine: the `Engine` that translates unless a call asks for what it lacks; its `name` is "torch" or
            "ctranslate2".
        reason: why it was chosen, in a line.
        tokenizer: of the checkpoint.

    Raises:
        OSError: there is no such checkpoint; or its conversion can be written nowhere, and CTranslate2 was asked for
            by name.
        ValueError: the engine is unknown or cannot do what is asked, and the message names what is in the way; or as
            `load_translator`.

    Example:
        >>> translator = Translator("runs/en-de")
        >>> list(translator.translate(["A dog runs."], num_beams=4))
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "float32",
        asked: Mapping[str, Any] | None = None,
        longest_source: int = 1,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"`engine`={engine!r} is unknown; allowed: {', '.join(ENGINES)}")
        if quantization not in QUANTIZATIONS:
            raise ValueError(f"`quantization`={quantization!r} is unknown; allowed: {', '.join(QUANTIZATIONS)}")
        if quantization != QUANTIZATIONS[0] and engine != "ctranslate2":
            raise ValueError(
                f"`quantization`={quantization!r} changes translations and is for `engine`='ctranslate2' only, but "
                f"`engine`={engine!r}"
            )
        self._folders = [folders] if isinstance(folders, str | Path) else list(folders)
        self._is_auto, self._device, self._dtype, self._loading = engine == "auto", device, dtype, Lock()
        self._torch_engine: TorchEngine | None = None
        obstacles: list[str] = []
        parts = None
        if engine != "torch":
            obstacles, parts = self._look_at_parts(asked or {})
        if obstacles and not self._is_auto:
            raise ValueError(
                f"`engine`='ctranslate2' cannot translate with {' and '.join(map(str, self._folders))}: "
                f"{'; '.join(obstacles)}"
            )
        engine_of_parts = None
        if parts is not None and not obstacles:
            try:
                engine_of_parts = self._make_ctranslate2_engine(quantization, longest_source, *parts)
            except OSError as error:
                if not self._is_auto:
                    raise
                obstacles.append(str(error))
        if engine_of_parts is None:
            self.engine: Engine = self._load_torch_engine()
            self.tokenizer: PreTrainedTokenizerBase = self._load_torch_engine().tokenizer
            self.reason = "torch: " + ("; ".join(obstacles) or "asked for by name")
        else:
            self.engine, self.tokenizer = engine_of_parts, engine_of_parts.tokenizer
            why = "on this CPU, and nothing is asked that it lacks" if self._is_auto else "asked for by name"
            self.reason = f"ctranslate2 ({quantization}, {engine_of_parts.num_threads} threads): {why}"
        logger.info(f"engine {self.reason}")

    @property
    def model(self) -> PreTrainedModel:
        """The model of torch, which is loaded when it is first asked for."""
        return self._load_torch_engine().model

    def engine_for(self, options: Mapping[str, Any]) -> Engine:
        """Chooses the engine of a call.

        Args:
            options: those of `translate_with_details`.

        Returns:
            `engine`; or, with "auto", that of torch where `engine` lacks something.

        Raises:
            ValueError: an option is not allowed; or `engine` lacks it, and was asked for by name.
        """
        if not isinstance(self.engine, CTranslate2Engine):
            return self.engine
        obstacles = self.engine.obstacles(_of_search(self.engine.generation_config, options))
        if not obstacles:
            return self.engine
        if not self._is_auto:
            raise ValueError(f"`engine`='ctranslate2' does not have {'; '.join(obstacles)}; use the engine torch")
        logger.info(f"engine of this call: torch: {'; '.join(obstacles)}")
        return self._load_torch_engine()

    def translate(self, sentences: Iterable[str], **options: Any) -> Iterator[str]:
        """Translates sentences of any length.

        Args:
            sentences: text; may be a stream.
            **options: of the function `translate`: `batch_size`, `tag`, `num_beams` and so on.

        Returns:
            One translation for each, in their order, as they are ready.

        Raises:
            TypeError: as the function `translate`, and so is the next.
            ValueError: likewise, and as `engine_for`.
        """
        return translate(self.engine_for(options), self.tokenizer, sentences, **options)

    def translate_with_details(self, sentences: Iterable[str], **options: Any) -> Iterator[list[Translation]]:
        """Translates, and returns n-best lists, scores, tokens and alignments.

        Args:
            sentences: text; may be a stream.
            **options: of the function `translate_with_details`: `nbest`, `scores`, `alignments`, `num_beams` and so on.

        Returns:
            For each sentence a list of `nbest` translations, in the order of that function, as they are ready.

        Raises:
            TypeError: as the function `translate_with_details`, and so is the next.
            ValueError: likewise, and as `engine_for`.
        """
        return translate_with_details(self.engine_for(options), self.tokenizer, sentences, **options)

    def _load_torch_engine(self) -> TorchEngine:
        with self._loading:
            if self._torch_engine is None:
                self._torch_engine = TorchEngine(*load_translator(self._folders, self._device, self._dtype))
            return self._torch_engine

    def _look_at_parts(
        self, asked: Mapping[str, Any]
    ) -> tuple[list[str], tuple[PreTrainedConfig, GenerationConfig, PreTrainedTokenizerBase] | None]:
        """What keeps CTranslate2 from translating, a phrase each; and what it needs besides weights."""
        obstacles = []
        if find_spec("ctranslate2") is None:
            obstacles.append("its package is not installed (pip install 'hf-vanilla-transformer[ctranslate2]')")
        if (self._is_auto or self._device != "auto") and choose_device(self._device).type != "cpu":
            obstacles.append(f"it is for the CPU, and the device is {choose_device(self._device)}")
        if len(self._folders) != 1:
            obstacles.append(f"it has no ensembles, and there are {len(self._folders)} models")
        if obstacles:
            return obstacles, None
        folder = place_of_model(self._folders[0])
        if (Path(folder) / ADAPTER_CONFIG).exists():
            return ["it has no adapters; merge them by peft's merge_and_unload()"], None
        config = load_config(folder)
        try:
            require_ctranslate2_support(config)
        except ValueError as error:
            obstacles.append(str(error))
        if getattr(config, "source_vocab_size", None) is not None:
            obstacles.append("source and target have different vocabularies (`source_vocab_size`)")
        if getattr(config, "quantization_config", None) is not None:
            obstacles.append("its weights are quantised already (`quantization_config`)")
        saved = str(config.dtype or "float32").removeprefix("torch.")
        if (dtype := saved if self._dtype == "auto" else self._dtype) != "float32":
            obstacles.append(f"it is for float32, and `dtype`={dtype!r}")
        tokenizer = load_tokenizer(folder)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            obstacles.append(f"its tokenizer is a {type(tokenizer).__name__}, which has no tokenizer.json")
        if obstacles:
            return obstacles, None
        defaults = _generation_config(folder, config)
        token_ids = {name: getattr(config, name) for name in ("eos_token_id", "decoder_start_token_id")}
        return plan_search(_of_search(defaults, asked), defaults, token_ids)[1], (config, defaults, tokenizer)

    def _make_ctranslate2_engine(
        self,
        quantization: str,
        longest_source: int,
        config: PreTrainedConfig,
        defaults: GenerationConfig,
        tokenizer: PreTrainedTokenizerBase,
    ) -> CTranslate2Engine:
        folder = place_of_model(self._folders[0])
        is_local = Path(folder).is_dir()
        if not is_local:
            folder = snapshot_download(str(folder), allow_patterns=[*LOADED_FILES, "generation_config.json"])

        def convert(num_positions: int) -> Path:
            return conversion_of(folder, quantization, num_positions, is_ours=is_local)

        return CTranslate2Engine(convert, config, defaults, tokenizer, quantization, longest_source)


def _of_search(defaults: GenerationConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a search will have, of those of a call."""
    named = {name: value for name, value in options.items() if name not in _NOT_OF_THE_SEARCH}
    return search_options(defaults, named, options.get("nbest", 1))


def _generation_config(folder: str | Path, config: PreTrainedConfig) -> GenerationConfig:
    """That of the model, without its weights."""
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # there is none
        with torch.device("meta"):
            return AutoModelForSeq2SeqLM.from_config(config).generation_config


__all__ = ["ENGINES", "Translator"]
