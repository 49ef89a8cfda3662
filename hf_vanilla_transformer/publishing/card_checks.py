"""What can be told of a model card without the Hub, which looks at it once more when it is uploaded."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import HFValidationError, validate_repo_id

CARD = "README.md"

_REQUIRED = ("library_name", "pipeline_tag", "tags")
_EXPECTED = ("license", "language", "datasets", "metrics")
# A code of ISO 639, with or without script or region; or a word of the Hub.
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
_LOADED = re.compile(r"""(?:from_pretrained\(|model\s*=)\s*["']([\w.-]+/[\w.-]+)["']""")


def check_card(folder: str | Path, repo_id: str = "") -> tuple[list[str], list[str]]:
    """Checks the card and the evaluation results of a folder.

    Args:
        folder: with README.md in it, and perhaps `.eval_results`.
        repo_id: what it is published as, if that is known.

    Returns:
        What forbids publishing it, and what is only worth knowing; a line each, which names the file.
    """
    path = Path(folder) / CARD
    findings: list[str] = []
    remarks: list[str] = []
    for results in sorted(Path(folder).glob(".eval_results/*.yaml")):
        try:
            parse_eval_result_entries(yaml.safe_load(results.read_text(encoding="utf-8")))
        except Exception as error:  # whatever is in it
            name = results.relative_to(folder).as_posix()
            findings.append(f"{name}: not evaluation results as the Hub reads them: {_in_one_line(error)}")
    try:
        metadata = metadata_load(path)
        if not isinstance(metadata, dict):
            return [*findings, f"{CARD}: has no metadata: a block of YAML between two lines of ---"], remarks
        ModelCard.load(path)
    except Exception as error:  # of YAML, or of huggingface_hub, which checks the results in it
        return [*findings, f"{CARD}: its metadata cannot be read: {_in_one_line(error)}"], remarks
    findings += [f"{CARD}: {problem}" for problem in _problems(metadata)]
    missing = [name for name in _EXPECTED if not metadata.get(name)]
    if missing:
        remarks.append(f"{CARD} does not say {', '.join(missing)}")
    others = sorted(set(_LOADED.findall(path.read_text(encoding="utf-8"))) - {repo_id})
    if repo_id and others:
        remarks.append(f"{CARD} loads {', '.join(others)}, and this is {repo_id}")
    return findings, remarks


def card_examples(folder: str | Path) -> list[tuple[str, str | None]]:
    """Reads the examples of a card, which the Hub shows beside it.

    Args:
        folder: with README.md in it.

    Returns:
        The texts, each with the output that the card promises, or None. Empty where there is no card or example.

    Raises:
        ValueError: the metadata of the card cannot be read.
    """
    path = Path(folder) / CARD
    try:
        metadata = metadata_load(path) if path.exists() else None
    except Exception as error:  # of YAML, whatever is in it
        raise ValueError(f"{path}: its metadata cannot be read: {_in_one_line(error)}") from error
    examples = []
    for each in _listed((metadata or {}).get("widget")):
        if isinstance(each, Mapping) and isinstance(each.get("text"), str):
            output = each.get("output")
            promised = output.get("text") if isinstance(output, Mapping) else None
            examples.append((each["text"], promised if isinstance(promised, str) else None))
    return examples


def _problems(metadata: Mapping[str, Any]) -> list[str]:
    problems = [f"its metadata lacks {name}" for name in _REQUIRED if not metadata.get(name)]
    if metadata.get("library_name") not in (None, "transformers"):
        problems.append(f"library_name is {metadata['library_name']!r}; the folder is loaded by transformers")
    for name in ("tags", "language", "datasets", "metrics"):
        for each in _listed(metadata.get(name)):
            if not isinstance(each, str):
                problems.append(f"{name}: {each!r} is not a string; put it in quotes")  # no: is False in YAML
            elif name == "language" and not _LANGUAGE.fullmatch(each):
                problems.append(f"language: {each!r} is not a code such as en or de")
            elif name == "datasets" and not _is_repo_id(each):
                problems.append(f"datasets: {each!r} is not a name of the Hub")
    for each in _listed(metadata.get("base_model")):
        if not _is_repo_id(each):
            problems.append(f"base_model: {each!r} is not a name of the Hub")
    for name in ("license", "pipeline_tag"):
        if metadata.get(name) is not None and not isinstance(metadata[name], str):
            problems.append(f"{name}: {metadata[name]!r} is not a string")
    for each in _listed(metadata.get("widget")):
        if not isinstance(each, Mapping) or not isinstance(each.get("text"), str):
            problems.append(f"widget: {each!r} has no text")
    return problems


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _is_repo_id(name: Any) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
