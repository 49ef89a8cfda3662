"""The folder of a Space: what is in it, that it is looked through, that it runs as a Space runs it, and its upload."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from commanding import run as run_command
from commanding import save_translator
from hub_stub import running_hub

import hf_vanilla_transformer
from hf_vanilla_transformer.commands import publish as command
from hf_vanilla_transformer.publishing import UnfitFolderError, publish_space, space
from hf_vanilla_transformer.publishing.space_proof import prove_space

PROJECT = Path(hf_vanilla_transformer.__file__).parents[1]
VERSIONS = {"torch": "2.13.0", "transformers": "5.24.0", "gradio": "6.31.0"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("x", "y"):
        save_translator(folder / name)
        (folder / name / "optimizer.pt").write_bytes(b"\x80\x04.")
    (folder / "x" / "README.md").write_text("---\nlicense: mit\nwidget:\n- text: b a\n---\n", encoding="utf-8")
    return [folder / "x", folder / "y"]


@pytest.fixture
def proofs(monkeypatch, tmp_path):
    """What would have been run; the package of the folder is one small file."""
    calls = []
    package = tmp_path / "source" / "hf_vanilla_transformer"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text('"""A package."""\n')
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    (package.parent / "LICENSE").write_text("A licence.\n")
    monkeypatch.setattr(space, "files", lambda name: [])  # as where it is not installed
    monkeypatch.setattr(space, "_PACKAGE", package)
    monkeypatch.setattr(space, "_proven_versions", lambda: dict(VERSIONS))
    monkeypatch.setattr(space, "prove_space", lambda folder, expected, is_offline: calls.append((expected, is_offline)))
    return calls


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_the_folder_has_what_a_space_needs_and_no_more(models, tmp_path, proofs):
    published = publish_space(models, "me/demo", dry_run=True, output=tmp_path / "out")
    assert published.upload is None
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == set(published.files)
    assert {name for name in found if not name.startswith("models/")} == {
        "LICENSE", "README.md", "app.py", "requirements.txt", "hf_vanilla_transformer/__init__.py"
    }  # fmt: skip
    assert (tmp_path / "out" / "LICENSE").read_text() == "A licence.\n"
    needed = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {name for name in found if name.startswith("models/x/")} == {f"models/x/{n}" for n in needed | {"README.md"}}
    assert {name for name in found if name.startswith("models/y/")} == {f"models/y/{name}" for name in needed}
    expected, is_offline = proofs[0]
    assert {name: text for name, (text, _) in expected.items()} == {"x": "b a", "y": "a b c"}
    assert is_offline


def test_its_card_says_how_it_is_run(models, tmp_path, proofs):
    publish_space(models, "me/demo", dry_run=True, output=tmp_path / "out")
    card = front_matter(tmp_path / "out")
    assert (card["sdk"], card["sdk_version"], card["app_file"]) == ("gradio", VERSIONS["gradio"], "app.py")
    assert card["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"  # a string, not 3.1
    assert len(card["short_description"]) <= 60  # the Hub's limit
    assert {card["colorFrom"], card["colorTo"]} <= {
        "red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"
    }  # fmt: skip
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| x | mit |" in text
    assert "| y | not stated |" in text


def test_what_each_model_makes_of_a_sentence_is_reported(tmp_path, proofs):
    """Of one sentence, too, which all models get that have no example."""
    for seed, name in enumerate(("x", "y")):
        save_translator(tmp_path / name, max_extra_tokens=seed)
    published = publish_space([tmp_path / "x", tmp_path / "y"], "me/demo", dry_run=True)
    expected, _ = proofs[0]
    assert published.translations == {f"{name}: {sentence}": text for name, (sentence, text) in expected.items()}
    assert len(set(published.translations.values())) == 2


def test_models_of_the_hub_stay_there(models, tmp_path, proofs, monkeypatch):
    load = space.load_translator
    monkeypatch.setattr(space, "load_translator", lambda names, device: load([models[0]], device))
    published = publish_space([models[1], "me/en-fr"], "me/demo", dry_run=True, output=tmp_path / "out")
    assert front_matter(tmp_path / "out")["models"] == ["me/en-fr"]
    program = (tmp_path / "out" / "app.py").read_text(encoding="utf-8")
    assert re.search(r"MODELS = \[\s*'models/y',\s*'me/en-fr',\s*\]", program)
    assert not any("en-fr" in name for name in published.files)
    assert proofs[0][1] is False  # the Hub is needed


def test_requirements_are_those_of_the_package_and_the_proven_versions(models, tmp_path, proofs):
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = {*project["dependencies"], *project["optional-dependencies"]["demo"]}
    rest = {each for each in declared if not re.match("|".join(space.PROVEN), each)}
    assert rest == set(space.REQUIREMENTS)
    publish_space(models[:1], "me/demo", dry_run=True, output=tmp_path / "out")
    lines = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert set(lines) == rest | {f"{name}=={number}" for name, number in VERSIONS.items()}


def test_what_must_not_leave_stops_it_before_it_runs(models, tmp_path, proofs):
    (space._PACKAGE / "mine.py").write_text('FOLDER = "/home/somebody/data"\n')
    with pytest.raises(UnfitFolderError, match=r"hf_vanilla_transformer/mine\.py:1: path of this or another machine"):
        publish_space(models, "me/demo", dry_run=True, output=tmp_path / "out")
    assert proofs == []
    assert not (tmp_path / "out").exists()
    publish_space(models, "me/demo", dry_run=True, allowed=["/home/somebody/data"])
    assert len(proofs) == 1


def test_what_cannot_be_published_is_refused(models, tmp_path, proofs):
    with pytest.raises(ValueError, match="two models are called alike"):
        publish_space([models[0], models[0]], dry_run=True)
    with pytest.raises(ValueError, match="nobody is logged in"):
        publish_space(models, "me/demo")
    with pytest.raises(ValueError, match="allowed: a name of the Hub"):
        publish_space(models, "a/b/c", dry_run=True)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        publish_space([tmp_path / "none"], dry_run=True)


def test_without_gradio_it_says_what_to_install(models, monkeypatch):
    monkeypatch.setattr(space, "PROVEN", ("torch", "no-such-package"))
    error = run_command(command.main, "--space", models[0], "--dry_run").error
    assert error.endswith("no-such-package: pip install 'hf-vanilla-transformer[demo]'")


def test_options_of_models_are_refused_with_a_space(models, proofs):
    for words in (["--sentence", "a"], ["--prove_on", "newest"], ["--exclude", "x"]):
        assert f"{words[0]} has no effect with --space" in run_command(command.main, "--space", models[0], *words).error
    assert "several are for --space" in run_command(command.main, *models, "--dry_run").error
    done = run_command(command.main, "--space", *models, "--dry_run")
    assert done.returncode == 0
    assert "app.py ran in a process of its own" in done.stdout


def test_the_licence_is_found_where_the_package_is_used():
    assert "Apache License" in space._own_licence().read_text(encoding="utf-8")


def test_what_running_it_leaves_behind_is_not_published(models, proofs, monkeypatch):
    monkeypatch.setattr(space, "prove_space", lambda folder, *rest, **options: (folder / "left").write_text("x"))
    published = publish_space(models[:1], "me/demo", dry_run=True)
    assert "app.py" in published.files
    assert "left" not in published.files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "peft_config", {"default": "lora"}), "is an adapter, which needs peft"),
        (lambda model: setattr(model.config, "quantization_config", {"bits": 4}), "are quantised"),
    ],
)
def test_models_that_need_packages_which_a_space_lacks_are_refused(models, proofs, monkeypatch, change, message):
    load = space.load_translator

    def changed(names, device):
        model, tokenizer = load(names, device)
        change(model)
        return model, tokenizer

    monkeypatch.setattr(space, "load_translator", changed)
    with pytest.raises(ValueError, match=message):
        publish_space(models[:1], "me/demo", dry_run=True)
    assert proofs == []


@pytest.mark.parametrize("is_offline", [True, False])
def test_it_runs_without_what_is_logged_in_cached_or_computing_here(tmp_path, monkeypatch, is_offline):
    for name, value in (("HF_TOKEN", "secret"), ("HF_HOME", str(tmp_path)), ("CUDA_VISIBLE_DEVICES", "0")):
        monkeypatch.setenv(name, value)
    program = "import json, os\njson.dump(dict(os.environ), open('seen.json', 'w'))\nraise SystemExit(3)\n"
    (tmp_path / "app.py").write_text(program)
    with pytest.raises(ValueError, match=r"app\.py of the Space ends with status 3"):
        prove_space(tmp_path, {}, is_offline)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "HF_TOKEN" not in seen
    assert not Path(seen["HF_HOME"]).exists()  # a folder of its own, which is gone
    assert (seen["HF_HUB_DISABLE_IMPLICIT_TOKEN"], seen["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert seen.get("HF_HUB_OFFLINE") == ("1" if is_offline else None)


def test_it_is_uploaded_as_a_space_in_one_commit(models, tmp_path, proofs):
    with running_hub() as hub:
        published = publish_space(models, "me/demo", output=tmp_path / "out")
        assert set(hub.files("me/demo")) - {".gitattributes"} == set(published.files)
        assert len(hub.repositories["me/demo"].branches["main"]) == 2  # the first is the Hub's own
        asked = [path for _, path in hub.requests if path.startswith("/api/") and "me/demo" in path]
        assert asked
        assert all(path.startswith("/api/spaces/me/demo") for path in asked)
    assert published.upload.has_changed


@pytest.mark.slow
def test_it_runs_in_a_fresh_process_as_in_a_space(models, tmp_path):
    """A minute on a quiet machine: the whole package is copied, and imported twice with Gradio by app.py."""
    pytest.importorskip("gradio")
    published = publish_space(models, "me/demo", dry_run=True, output=tmp_path / "out")
    assert "hf_vanilla_transformer/demo/page/index.html" in published.files
    assert not any("__pycache__" in name for name in published.files)
    with pytest.raises(ValueError, match="the Space answers 'b a' by .*, but here x says 'another'"):
        prove_space(tmp_path / "out", {"x": ("b a", "another")})
    config = tmp_path / "out" / "models" / "x" / "config.json"
    config.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"app\.py of the Space ends with status 1: .*models/x cannot be loaded"):
        prove_space(tmp_path / "out", {})
