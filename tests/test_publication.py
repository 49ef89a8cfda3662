"""Publishing a folder from end to end: what is built, what stops it, and what can be loaded from the Hub afterwards."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commanding import save_translator
from hub_stub import running_hub
from peft import LoraConfig, get_peft_model
from released import standing
from test_remote_code import PACKAGE_IS_MISSING
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer.inference import shipped, translate
from hf_vanilla_transformer.publishing import ProvenOn, UnfitFolderError, UploadError, publication, publish, uploading
from hf_vanilla_transformer.publishing.proof import Proof
from hf_vanilla_transformer.publishing.release import write_card as write_released_card

# Of huggingface_hub itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

SENTENCES = ["a b", "C A"]
CARD = {"library_name": "transformers", "pipeline_tag": "translation", "tags": ["x"], "license": "mit"}
WITHOUT_PACKAGE = Proof("another", "3.12.1", "2.13.0", "5.18.0", was_hidden=False)
HIDDEN = Proof("this interpreter", "3.11.7", "2.13.0", "5.24.0", was_hidden=True)


def write_card(folder, **metadata):
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({**CARD, **metadata})}---\n# Mine\n")


@pytest.fixture
def run(tmp_path):
    """The folder of a run, with what a run leaves in it."""
    folder = tmp_path / "en-de"
    model, _ = save_translator(folder)
    model.generation_config.update(num_beams=1, max_extra_tokens=3)  # which takes no time
    model.generation_config.save_pretrained(folder)
    metrics = {"final_bleu": 12.25, "final_chrf": 34.5, "signatures": {"bleu": "nrefs:1", "chrf": "nrefs:1"}}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics, "arguments": {"train_data": ["train.tsv"]}}))
    for name in ("checkpoint-2/optimizer.pt", "dates.jsonl", "runs/events", "outputs/test.de", ".eval_results/x.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("[]")
    return folder


@pytest.fixture
def proofs(monkeypatch):
    """The proofs that were asked for, each of which succeeds without another interpreter."""
    asked = []

    def pretend(folder, sentences, expected, **options):
        asked.append(({path.name for path in Path(folder).iterdir()}, sentences, expected, options))
        return HIDDEN if not options else WITHOUT_PACKAGE

    monkeypatch.setattr(publication, "prove_folder", pretend)
    return asked


def dry(folder, **options):
    return publish(folder, "me/en-de", dry_run=True, **{"sentences": SENTENCES, **options})


def test_a_dry_run_builds_a_folder_with_code_model_card_and_results(run, tmp_path, proofs):
    done = dry(run, output=tmp_path / "built")
    built = {path.relative_to(tmp_path / "built").as_posix(): path for path in (tmp_path / "built").rglob("*")}
    files = {name: path.stat().st_size for name, path in built.items() if path.is_file()}
    assert done.files == files
    assert {name for name in files if not name.endswith(".py")} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "results.json", "outputs/test.de", ".eval_results/x.yaml",
    }  # fmt: skip
    assert "modeling_vanilla_transformer.py" in files
    assert "translation_pipeline.py" in files
    config = json.loads(built["config.json"].read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    assert "translation" in config["custom_pipelines"]
    for name in ("model.safetensors", "results.json"):
        assert built[name].read_bytes() == (run / name).read_bytes()
    card = built["README.md"].read_text()
    assert 'from_pretrained("me/en-de"' in card
    assert "12.25" in card
    assert done.left_out == ["checkpoint-2/optimizer.pt", "dates.jsonl", "runs/events"]
    assert done.upload is None


def test_the_proof_is_of_what_was_built_and_of_what_the_model_says_here(run, proofs):
    done = dry(run)
    ((names, sentences, expected, options),) = proofs
    assert names >= {"config.json", "README.md", "decoder.py"}
    assert (sentences, options) == (SENTENCES, {})
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run).eval(), AutoTokenizer.from_pretrained(run)
    texts = [each["pipeline"].replace("\r", " ") for each in expected]
    assert texts == list(translate(model, tokenizer, SENTENCES))
    assert list(done.translations) == SENTENCES


def test_a_card_that_is_there_is_kept_and_its_examples_are_proven(run, proofs, tmp_path):
    write_card(run, widget=[{"text": "b b"}, {"text": "B"}])
    done = dry(run, sentences=["c"], output=tmp_path / "built")
    assert list(done.translations) == ["c", "b b", "B"]
    assert (tmp_path / "built" / "README.md").read_bytes() == (run / "README.md").read_bytes()
    assert done.remarks == ["README.md does not say language, datasets, metrics"]


def test_what_the_card_promises_is_what_the_model_says(run, proofs):
    says = dry(run).translations
    write_card(run, widget=[{"text": text, "output": {"text": says[text]}} for text in SENTENCES])
    assert dry(run, sentences=()).translations == says
    write_card(run, widget=[{"text": text, "output": {"text": "Ein Hund."}} for text in SENTENCES])
    with pytest.raises(UnfitFolderError) as caught:
        dry(run)
    assert len(caught.value.findings) == 2
    assert caught.value.findings[0].startswith("README.md: promises that 'a b' becomes 'Ein Hund.', but it becomes ")


@pytest.mark.parametrize("sentences", [(), ["a b"], ["a b", "a b"]])
def test_two_sentences_are_needed(run, sentences, proofs):
    with pytest.raises(ValueError, match=r"translates 2 sentences or more, and there are \d: .*--sentence"):
        dry(run, sentences=sentences)


def test_findings_stop_it_before_the_proof_and_leave_nothing(run, tmp_path, proofs):
    (run / "results.json").write_text('{"metrics": {}, "arguments": {"train_data": ["/home/somebody/train.tsv"]}}')
    with pytest.raises(UnfitFolderError, match="results.json:1: path of this or another machine: /home/somebody/train"):
        dry(run, output=tmp_path / "built")
    assert proofs == []
    assert not (tmp_path / "built").exists()
    assert dry(run, allowed=["/home/somebody/train.tsv"]).files
    assert "results.json" not in dry(run, exclude=["results.json"]).files


def test_a_proof_that_fails_stops_it_before_the_upload_and_leaves_nothing(run, tmp_path, monkeypatch):
    def disproven(*args, **options):
        raise ValueError("on this interpreter the folder does not work")

    monkeypatch.setattr(publication, "prove_folder", disproven)
    with running_hub() as hub, pytest.raises(ValueError, match="does not work"):
        publish(run, "me/en-de", sentences=SENTENCES, output=tmp_path / "built")
    assert hub.requests == []
    assert not (tmp_path / "built").exists()


def test_other_interpreters_prove_after_this_one(run, proofs, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(
        publication, "python_with_transformers", lambda *words: made.append(words) or Path("venv/python")
    )
    (tmp_path / "constraints.txt").touch()
    proven_on = ProvenOn(["/usr/bin/python9"], ["oldest", "5.20"], tmp_path / "constraints.txt", tmp_path / "kept")
    done = dry(run, proven_on=proven_on)
    assert made == [(version, tmp_path / "kept", tmp_path / "constraints.txt") for version in ("5.18", "5.20")]
    assert [str(options.get("python")) for *_, options in proofs] == [
        "None",
        "/usr/bin/python9",
        "venv/python",
        "venv/python",
    ]
    assert [options.get("version") for *_, options in proofs] == [None, None, "5.18", "5.20"]
    assert done.proofs == [HIDDEN, *[WITHOUT_PACKAGE] * 3]
    assert done.unproven == []


def test_what_was_not_proven_is_said(run, proofs):
    assert dry(run).unproven == [
        "transformers 5.18, the oldest of the tested range: --prove_on oldest",
        "an environment in which the package was never installed: --prove_on or --python",
    ]


def test_a_shipped_checkpoint_is_found_by_its_name(run, proofs, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", run.parent)
    monkeypatch.chdir(Path(__file__).parent)
    assert dry(run.name).files == dry(run).files


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"versions": ["5"]}, ValueError, "'5' is not a version of transformers"),
        ({"constraint": "x"}, ValueError, "`constraint` has no effect without"),
        ({"environments": "x"}, ValueError, "`environments` has no effect without"),
        (
            {"versions": ["oldest"], "constraint": "nowhere.txt"},
            FileNotFoundError,
            "no file of constraints nowhere.txt",
        ),
    ],
)
def test_a_proof_that_cannot_be_made_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        ProvenOn(**options)


def test_what_cannot_be_published_is_refused(run, tmp_path, proofs, monkeypatch):
    for name in ("nowhere", "en-de/config.json", "me/en-de"):  # the last may be one of the Hub
        with pytest.raises(FileNotFoundError, match="there is no folder .*; give the folder of a model"):
            dry(tmp_path / name)
    (run / "README.md").write_text("---\ntags: [a\n---\n")
    with pytest.raises(ValueError, match="README.md: its metadata cannot be read"):
        dry(run)
    (run / "README.md").unlink()
    with pytest.raises(ValueError, match="`name`='a/b/c' is not allowed; allowed: a name of the Hub"):
        publish(run, "a/b/c", dry_run=True, sentences=SENTENCES)
    with pytest.raises(OSError, match="is the folder of the model itself"):
        dry(run, output=run)
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(run), LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="adapter is an adapter, which needs its model"):
        dry(tmp_path / "adapter")
    monkeypatch.setattr(uploading, "get_token", lambda: None)
    with pytest.raises(ValueError, match="nobody is logged in to the Hub"):
        publish(run, "me/en-de", sentences=SENTENCES)
    assert proofs == []


def test_the_repository_is_called_like_the_folder_unless_it_has_a_name(run, proofs):
    with running_hub() as hub:
        assert publish(run, sentences=SENTENCES).upload.repo_id == "me/en-de"
        assert publish(run, "us/other", sentences=SENTENCES).upload.repo_id == "us/other"
        hub.fail("GET", "/api/whoami", 401)
        with pytest.raises(UploadError, match="it could not be asked who is logged in: 401 .*log in: hf auth login"):
            publish(run, sentences=SENTENCES)
    assert set(hub.repositories) == {"me/en-de", "us/other"}
    for name in hub.repositories:  # which the card that was written says
        assert f'from_pretrained("{name}"' in hub.files(name)["README.md"].decode()


def test_a_released_card_may_say_what_the_repository_is_called(released, tmp_path, proofs):
    results = json.loads((released / "results.json").read_text())
    results["card"]["repo_id"] = "us/backwards"
    folder = tmp_path / "backwards"
    shutil.copytree(released, folder)
    write_released_card(folder, results)
    with running_hub() as hub:
        assert publish(folder).upload.repo_id == "us/backwards"
    assert hub.files("us/backwards")["README.md"] == (folder / "README.md").read_bytes()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return standing(tmp_path_factory.mktemp).folder


def test_the_card_of_a_release_says_where_it_is_published_and_is_otherwise_the_same(released, tmp_path, proofs):
    done = publish(released, "us/other", dry_run=True, output=tmp_path / "built")
    card, before = ((folder / "README.md").read_text() for folder in (tmp_path / "built", released))
    assert 'from_pretrained("us/other"' in card
    assert card.replace("us/other", "NAME") == before.replace("USER/backwards", "NAME").replace(
        "model_cards/backwards", "NAME"
    )
    assert len(done.translations) == 2
    assert {name for name in done.files if not name.endswith(".py")} == {
        path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file()
    }
    assert done.left_out == []
    assert done.remarks == []


def test_a_card_that_people_have_changed_is_kept(released, tmp_path, proofs):
    folder = tmp_path / "backwards"
    shutil.copytree(released, folder)
    with open(folder / "README.md", "a") as file:
        file.write("More.\n")
    publish(folder, "us/other", dry_run=True, output=tmp_path / "built")
    assert (tmp_path / "built" / "README.md").read_bytes() == (folder / "README.md").read_bytes()


def test_what_is_uploaded_is_what_was_built_and_no_more(run, tmp_path, proofs):
    built = tmp_path / "built"
    built.mkdir()
    (built / "diary.txt").write_text("mine")
    with running_hub() as hub:
        done = publish(run, "me/en-de", sentences=SENTENCES, output=built, overwrite=True, commit_message="One")
    commit = hub.repositories["me/en-de"].branches["main"][-1]
    assert {name: content for name, content in commit.files.items() if name in commit.changed} == {
        name: (built / name).read_bytes() for name in done.files
    }
    assert (commit.message, set(commit.changed)) == ("One", set(done.files))
    assert (built / "diary.txt").read_text() == "mine"


def test_after_a_failed_upload_the_same_call_completes_it(run, tmp_path, proofs):
    with running_hub() as hub:
        hub.fail("POST", "/commit/", 500)
        with pytest.raises(UploadError, match="kept by the Hub: model.safetensors; not uploaded: .eval"):
            publish(run, "me/en-de", sentences=SENTENCES, output=tmp_path / "built")
        assert (tmp_path / "built" / "config.json").exists()  # it was proven
        done = publish(run, "me/en-de", sentences=SENTENCES)
        assert done.upload.has_changed
        again = publish(run, "me/en-de", sentences=SENTENCES)
        assert again.upload.address == done.upload.address
        assert not again.upload.has_changed
    assert len(hub.asked("PUT", "/objects/")) == 1
    assert len(hub.repositories["me/en-de"].branches["main"]) == 2


LOAD_BACK = (
    PACKAGE_IS_MISSING
    + """
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

name, sentences = sys.argv[1], sys.argv[2:]
model = AutoModelForSeq2SeqLM.from_pretrained(name, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
inputs = [tokenizer([sentence], return_tensors="pt") for sentence in sentences]
generated = [tokenizer.batch_decode(model.generate(**each), skip_special_tokens=True)[0] for each in inputs]
translator = pipeline("translation", model=name, trust_remote_code=True, device="cpu")
print(json.dumps([generated, [each["translation_text"] for each in translator(sentences)]]))
"""
)


@pytest.mark.slow  # 25 seconds: two other interpreters
def test_what_is_published_loads_from_the_hub_where_the_package_is_not(run, tmp_path):
    """The whole way: built, looked through, proven, uploaded in two tries, and loaded by somebody else's program."""
    with running_hub() as hub:
        hub.fail("PUT", "/objects/", 500, times=6)
        with pytest.raises(UploadError, match="model.safetensors could not be uploaded to me/en-de: 500"):
            publish(run, "me/en-de", sentences=SENTENCES)
        done = publish(run, "me/en-de", sentences=SENTENCES)
        loaded = subprocess.run(
            [sys.executable, "-I", "-c", LOAD_BACK, "me/en-de", *SENTENCES],
            env=hub.environment(tmp_path / "home"), cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    generated, translated = json.loads(loaded.stdout.splitlines()[-1])
    assert translated == list(done.translations.values())
    assert generated == translated
    assert hub.asked("HEAD", "/me/en-de/resolve/")
    assert hub.asked("GET", "model.safetensors")
