"""Translating sentences, files and streams with a trained model or an ensemble."""

from ..translation_batches import Engine, TorchEngine, Translation
from .bad_lines import BadLines
from .devices import choose_device
from .engine_ctranslate2 import CTranslate2Engine
from .ensemble import EnsembleForConditionalGeneration
from .files import translated_lines, write_lines
from .loading import load_config, load_model, load_tokenizer, load_translator
from .outputs import open_output
from .pipes import run_as_filter
from .processes import Process
from .shard_translation import translate_shards
from .shards import ShardedFile
from .shipped import default_translator, shipped_checkpoints
from .translation import translate, translate_with_details
from .translator import Translator

__all__ = [
    "BadLines",
    "CTranslate2Engine",
    "Engine",
    "EnsembleForConditionalGeneration",
    "Process",
    "ShardedFile",
    "TorchEngine",
    "Translation",
    "Translator",
    "choose_device",
    "default_translator",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_translator",
    "open_output",
    "run_as_filter",
    "shipped_checkpoints",
    "translate",
    "translate_shards",
    "translate_with_details",
    "translated_lines",
    "write_lines",
]
