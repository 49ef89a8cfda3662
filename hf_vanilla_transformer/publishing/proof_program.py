"""Loads a self-contained folder as somebody without this package does; runs by itself, in any interpreter.

    python -I -B proof_program.py REQUEST ANSWER

REQUEST is a JSON file with `folder` and `sentences`; ANSWER is written as JSON when all has gone well.
"""

import importlib
import importlib.abc
import importlib.util
import json
import platform
import sys
import textwrap
from functools import partial
from typing import Any

PACKAGE = "hf_vanilla_transformer"


class PackageIsHidden(importlib.abc.MetaPathFinder):
    """Asked before all other finders, also before those that editable installs add through site-packages."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuses the package, and says nothing about other modules."""
        if fullname.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"{fullname} is hidden", name=fullname)


def hide_package() -> bool:
    """Makes the package one that cannot be imported.

    Returns:
        Whether it could have been.

    Raises:
        RuntimeError: it has been imported already, or still can be.
    """
    if any(name.partition(".")[0] == PACKAGE for name in sys.modules):
        raise RuntimeError(f"{PACKAGE} has been imported before anything else, so that nothing can be proven here")
    was_there = importlib.util.find_spec(PACKAGE) is not None
    sys.meta_path.insert(0, PackageIsHidden())
    importlib.invalidate_caches()
    try:
        importlib.import_module(PACKAGE)
    except ModuleNotFoundError:
        return was_there
    raise RuntimeError(f"{PACKAGE} can still be imported, so that nothing can be proven here")


def translate_both_ways(model: Any, tokenizer: Any, translator: Any, sentences: list[str]) -> list[dict[str, str]]:
    """Translates by `generate()`, as a card shows it, and by the pipeline.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        translator: its pipeline.
        sentences: text.

    Returns:
        For each sentence, the texts by the names `generate` and `pipeline`.
    """
    import torch

    results = []
    for sentence in sentences:
        inputs = tokenizer([sentence], return_tensors="pt").to(model.device)
        torch.manual_seed(0)  # for models that sample
        generated = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0]
        torch.manual_seed(0)
        results.append({"generate": generated, "pipeline": translator(sentence)[0]["translation_text"]})
    return results


def prove(folder: str, sentences: list[str]) -> dict[str, Any]:
    """Loads the folder by each Auto class and by the pipeline, and translates.

    Args:
        folder: the self-contained folder.
        sentences: text to translate.

    Returns:
        `translations`, as of `translate_both_ways`; `was_hidden`, whether the package is installed here; and the
        versions of `python`, `torch` and `transformers`.

    Raises:
        RuntimeError: a class does not load or is not from the code of the folder, or the package can be imported.
    """
    was_hidden = hide_package()
    import torch
    import transformers
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    autos: list[Any] = [AutoConfig, AutoModel, AutoTokenizer, AutoModelForSeq2SeqLM]
    loaders = {each.__name__: partial(each.from_pretrained, folder) for each in autos}
    loaders["pipeline"] = partial(pipeline, "translation", model=folder, device="cpu")
    loaded = {}
    for name, load in loaders.items():
        try:
            loaded[name] = load(trust_remote_code=True)
        except Exception as error:  # whatever it is, it belongs to this loader, and is wanted in one line
            text = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
            raise RuntimeError(f"{name} fails: {text}") from error
        module = type(loaded[name]).__module__
        if name != "AutoTokenizer" and not module.startswith("transformers_modules."):
            raise RuntimeError(f"{name} gives a class of {module}, not of the folder's own code")
    model, tokenizer, translator = loaded["AutoModelForSeq2SeqLM"], loaded["AutoTokenizer"], loaded["pipeline"]
    return {
        "translations": translate_both_ways(model.eval(), tokenizer, translator, sentences),
        "was_hidden": was_hidden,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as request:
        answer = prove(**json.load(request))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(answer, file)
