"""What the tests of the queue share: lists of tiny runs, and a process that only pretends to train."""

import json

import matplotlib.image
import yaml
from training_runs import options

from hf_vanilla_transformer.training.recipes import given_values
from hf_vanilla_transformer.training.report import without_secrets

METRICS = {"updates": 28, "parameters": 10176, "minutes": 1.5, "final_weights": "last update", "final_runtime": 3.0}


def write_list(folder, runs, text=None, **keys):
    """Writes a list of tiny runs in a folder, which has their folders too."""
    text = folder if text is None else text
    defaults = {name: value for name, value in options(text, "x").items() if name != "output_dir"}
    for name in ("train", "val"):
        (text / f"{name}.jsonl").touch()
    folder.mkdir(exist_ok=True)
    path = folder / "runs.yaml"
    runs = [{"output_dir": str(folder / str(run["name"])), **run} for run in runs]
    path.write_text(yaml.safe_dump({"defaults": defaults, "runs": runs, **keys}, sort_keys=False))
    return path


def check_picture(path):
    """Makes sure that a file is a picture with something on it, and that nothing half-written lies beside it."""
    if path.suffix == ".png":
        image = matplotlib.image.imread(path)
        assert image.min() < 0.5 < image.max(), "something is on it"
    else:
        assert "<svg" in path.read_text()
    assert not list(path.parent.glob("*.partial"))


def pretend_to_train(run, **scores):
    """Leaves the results of a run that has ended."""
    run.output_dir.mkdir(parents=True, exist_ok=True)
    metrics = METRICS | {f"final_{name}": value for name, value in (scores or {"loss": 2.0, "bleu": 30.0}).items()}
    arguments = without_secrets(given_values(run.arguments))
    (run.output_dir / "results.json").write_text(json.dumps({"metrics": metrics, "arguments": arguments}))
