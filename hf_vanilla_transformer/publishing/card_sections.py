"""The sections of a card, in their order; each is written of results, and left out where there are none for it."""

import json
import shlex
from collections.abc import Callable

from .card_tables import examples_section, results_section, table
from .results_schema import Results, Run, verb_of

_LOADING = """With the package hf_vanilla_transformer:

```python
import hf_vanilla_transformer  # registers the model with the Auto classes
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("{place}")
tokenizer = AutoTokenizer.from_pretrained("{place}")
{use}
```

Without it, by transformers alone, from a repository that `vanilla-transformer publish` has made, which has the code:

```python
from transformers import AutoModelForSeq2SeqLM, {tokenizer_class}

model = AutoModelForSeq2SeqLM.from_pretrained("{repository}", trust_remote_code=True)
tokenizer = {tokenizer_class}.from_pretrained("{repository}"{trust})
{use}
```

On the command line, with the package:

```bash
vanilla-transformer translate --model {place} {quoted}
```
"""
_USE = """inputs = tokenizer([{sentence}], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True))"""

_FILES = """- `config.json`, `generation_config.json`, `model.safetensors` (float32), `tokenizer.json`, `tokenizer_config.json`: the model
- `results.json`: every figure of this card, which `vanilla-transformer release` has made of it
- `outputs/`: the translations that were scored, so that they can be scored again without the model
- `recipe.yaml`: the run; `vanilla-transformer {verb} recipe.yaml` repeats it, once its data{more} are where it says
- `curves.png`: the log of the run"""  # noqa: E501  # lines of Markdown


def write_sections(results: Results, repo_id: str | None) -> str:
    """Writes everything below the head of a card.

    Args:
        results: of which the card is made.
        repo_id: the name on the Hub; None for one to be filled in.

    Returns:
        Markdown.
    """
    sections: dict[str, Callable[[Results], str]] = {
        "Intended use": lambda results: results["card"].get("intended_use") or "",
        "How to load it": lambda results: _loading(results, repo_id),
        "Examples": _inputs,
        "Results": _results,
        "Training data and licence": _data,
        "Training": _training,
        "Limits and failure cases": _limits,
        "Files": _files,
    }
    written = {title: write(results).strip() for title, write in sections.items()}
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in written.items() if text)


def _loading(results: Results, repo_id: str | None) -> str:
    inputs = results.get("inputs") or []
    sentence = inputs[0]["source"] if inputs else "A sentence."
    use = _USE.format(sentence=json.dumps(sentence, ensure_ascii=False))
    if inputs:
        use += f"  # {[inputs[0]['output']]}"
    has_code = results["model"].get("tokenizer_has_code")
    return _LOADING.format(
        # Without code, AutoTokenizer would ask whether that of the model may be run.
        tokenizer_class="AutoTokenizer" if has_code else "PreTrainedTokenizerFast",
        trust=", trust_remote_code=True" if has_code else "",
        place=repo_id or f"model_cards/{results['name']}",
        repository=repo_id or f"USER/{results['name']}",
        use=use,
        quoted=shlex.quote(sentence),
    )


def _inputs(results: Results) -> str:
    inputs = results.get("inputs")
    return table(["Input", "Output"], [[each["source"], each["output"]] for each in inputs]) if inputs else ""


def _results(results: Results) -> str:
    evaluations = results.get("evaluations")
    if not evaluations:
        return ""
    titles = {
        role: " and ".join(each["title"] for each in evaluations if each["role"] == role)
        for role in ("validation", "test")
    }
    training, parts = results["training"], []
    if titles["test"]:
        chosen = f"Everything was chosen on {titles['validation']}; " if titles["validation"] else ""
        parts.append(f"{chosen}{titles['test']} was scored once, for this release.")
        parts.append(
            "Intervals hold 95 % of the scores of texts whose sentences were drawn with replacement (bootstrap)."
        )
    if (count := len(training["runs"])) > 1:
        parts.append(
            f"Of {count} runs that differ in their seed, the checkpoint is the one with {training['chosen_by']}."
        )
    return "\n\n".join(filter(None, [" ".join(parts), results_section(evaluations, training)]))


def _data(results: Results) -> str:
    card = results["card"]
    if not card.get("training_data"):
        return ""
    link = f" ({card['license_link']})" if card.get("license_link") else ""
    return (
        f"{card['training_data']}\n\nLicence of this checkpoint: {card.get('license_name') or card['license']}{link}."
    )


def _training(results: Results) -> str:
    card, training = results["card"], results["training"]
    if training.get("arguments") is None:
        return ""
    rows = [
        [
            f"{run['seed']}"
            + (" (this checkpoint)" if index == training["shipped"] and len(training["runs"]) > 1 else ""),
            f"{run['updates']:,}",
            f"{run['minutes']:.1f}",
            run["final_weights"],
            _hardware(run) or card.get("hardware") or "not recorded",
        ]
        for index, run in enumerate(training["runs"])
    ]
    energy = card.get("energy") or "Energy was not measured."
    begins_with = card.get("begins_with")
    before = [f"What came before it, which updates and minutes do not count: {begins_with}"] if begins_with else []
    return "\n\n".join(
        [
            f"The recipe is [recipe.yaml](recipe.yaml), run by `vanilla-transformer {verb_of(training['arguments'])}`.",
            *before,
            table(["Seed", "Updates", "Minutes", "Final weights", "Computed on"], rows),
            f"Minutes are by the clock, evaluations on the validation set included. {energy}",
            "![Losses, validation scores and learning rate over updates](curves.png)",
        ]
    )


def _hardware(run: Run) -> str:
    environment = run.get("environment")
    if environment is None:
        return ""
    processes, threads = environment["processes"], environment["threads"]
    many = f"{processes} processes of " if processes > 1 else ""
    return f"{environment['device']}, {many}{threads} thread{'s' if threads > 1 else ''}, torch {environment['torch']}"


def _limits(results: Results) -> str:
    examples = results.get("examples")
    return "\n\n".join(
        filter(None, [results["card"].get("limits") or "", examples_section(examples) if examples else ""])
    )


def _files(results: Results) -> str:
    arguments = results["training"].get("arguments")
    more = " and what it begins with" if results["card"].get("begins_with") else ""
    return "" if arguments is None else _FILES.format(verb=verb_of(arguments), more=more)
