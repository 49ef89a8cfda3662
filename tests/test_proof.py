"""The proof of a folder: what it compares, what it says when it fails, and how an interpreter is kept apart."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commanding import save_translator

import hf_vanilla_transformer
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.publishing import proof_program, save_self_contained
from hf_vanilla_transformer.publishing.proof import Proof, expected_translations, prove_folder

SENTENCES = ["a b", "C A"]
EXPECTED = [{"generate": "x y", "pipeline": "x y"}, {"generate": "z", "pipeline": "z"}]
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.18.0", "was_hidden": False}


def interpreter(folder, program):
    """An interpreter that does something else: it gets the same words, and takes no time to import torch."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable} -S\nimport json, os, sys\n{program}\n")
    path.chmod(0o755)
    return path


def answering(folder, translations, **versions):
    answer = {"translations": translations, **VERSIONS, **versions}
    return interpreter(folder, f"open(sys.argv[-1], 'w').write({json.dumps(answer)!r})")


def test_equal_translations_are_a_proof(tmp_path):
    proof = prove_folder(tmp_path, SENTENCES, EXPECTED, answering(tmp_path, EXPECTED), "another")
    assert proof == Proof("another", "3.11.7", "2.13.0", "5.18.0", was_hidden=False)
    assert str(proof) == "transformers 5.18.0, torch 2.13.0, Python 3.11.7 (another, without the package)"
    hidden = prove_folder(tmp_path, SENTENCES, EXPECTED, answering(tmp_path, EXPECTED, was_hidden=True), "another")
    assert str(hidden).endswith("(another, the package hidden)")


def test_an_interpreter_with_another_transformers_proves_nothing(tmp_path):
    python = answering(tmp_path, EXPECTED)  # with 5.18.0
    for version in ("5.18", "5.18.0"):
        assert prove_folder(tmp_path, SENTENCES, EXPECTED, python, version=version).transformers == "5.18.0"
    for version in ("5.1", "5.18.1", "5.24"):
        with pytest.raises(ValueError, match=f"has transformers 5.18.0 and not {version}; remove its environment"):
            prove_folder(tmp_path, SENTENCES, EXPECTED, python, version=version)


@pytest.mark.parametrize("way", ["generate", "pipeline"])
def test_one_other_translation_is_none(way, tmp_path):
    other = [EXPECTED[0], {**EXPECTED[1], way: "w"}]
    with pytest.raises(ValueError, match=rf"Python 3.11.7 \(n, .*the {way} translation of 'C A' is 'w', but .* 'z'"):
        prove_folder(tmp_path, SENTENCES, EXPECTED, answering(tmp_path, other), "n")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "print('Traceback', 'ImportError: too old', sep='\\n', file=sys.stderr); sys.exit(1)",
            "ImportError: too old",
        ),
        ("sys.exit(3)", "exit status 3, without a message"),
        ("pass", "exit status 0, without a message"),
    ],
)
def test_an_interpreter_that_fails_is_named_with_its_last_words(program, message, tmp_path):
    with pytest.raises(ValueError, match=f"on old one the folder does not work: {message}"):
        prove_folder(tmp_path, SENTENCES, EXPECTED, interpreter(tmp_path, program), "old one")


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"n \(.*/nowhere/python\) proves nothing: .*No such file"):
        prove_folder(tmp_path, SENTENCES, EXPECTED, tmp_path / "nowhere" / "python", "n")


def test_an_interpreter_gets_the_request_and_nothing_of_this_process(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "PYTHONPATH", "TRANSFORMERS_CACHE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "of-this-process")
    seen = tmp_path / "seen.json"
    record = "{'words': sys.argv, 'environment': dict(os.environ), 'folder': os.getcwd(), 'request': request}"
    program = f"request = json.load(open(sys.argv[-2]))\njson.dump({record}, open({str(seen)!r}, 'w'))"
    interpreter(tmp_path, program)
    with pytest.raises(ValueError, match="without a message"):
        prove_folder("model", SENTENCES, EXPECTED, "./python", "n")
    found = json.loads(seen.read_text())
    assert found["words"][1:3] == ["-I", "-B"]
    assert found["words"][3] == proof_program.__file__
    assert found["request"] == {"folder": str(tmp_path / "model"), "sentences": SENTENCES}
    assert "of-this-process" not in found["environment"].values()
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"
    assert Path(found["environment"]["HF_HOME"]).parent == Path(found["folder"]).resolve()
    assert not Path(found["folder"]).exists()


HIDING = """
import importlib, importlib.util, runpy, sys
program = runpy.run_path(sys.argv[1])
print(program["hide_package"]())
for name in ("hf_vanilla_transformer", "hf_vanilla_transformer.loss", "hf_vanilla_transformers"):
    try:
        importlib.import_module(name)
        print("imported", name)
    except ModuleNotFoundError:
        print("no", name)
import json.tool
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_the_package_cannot_be_imported_where_it_is_installed(is_there, tmp_path):
    """Installed in the way of an editable install: by a finder that a file .pth of site-packages has added."""
    finder = f"""
import importlib.machinery, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "hf_vanilla_transformer":
            place = {str(Path(hf_vanilla_transformer.__file__).parents[1])!r}
            return importlib.machinery.PathFinder.find_spec(name, [place])
sys.meta_path.insert(0, Finder)
"""
    program = (finder if is_there else "") + HIDING
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, proof_program.__file__], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    names = ["hf_vanilla_transformer", "hf_vanilla_transformer.loss", "hf_vanilla_transformers"]
    assert done.stdout.splitlines() == [str(is_there), *(f"no {name}" for name in names)]


def test_nothing_is_proven_where_the_package_has_been_imported_already():
    with pytest.raises(RuntimeError, match="hf_vanilla_transformer has been imported before anything else"):
        proof_program.hide_package()
    assert not any(isinstance(finder, proof_program.PackageIsHidden) for finder in sys.meta_path)


def test_what_is_expected_is_what_translate_says(tmp_path):
    model, tokenizer = save_translator(tmp_path)
    expected = expected_translations(model, tokenizer, SENTENCES)
    texts = [each["pipeline"].replace("\r", " ") for each in expected]  # translate() gives one line for each
    assert texts == list(translate(model, tokenizer, SENTENCES))
    for sentence, each in zip(SENTENCES, expected):
        ids = model.generate(**tokenizer(sentence, return_tensors="pt"))
        assert each["generate"] == tokenizer.decode(ids[0], skip_special_tokens=True)


def test_a_self_contained_folder_is_proven_and_is_left_as_it_was(tmp_path):
    """With this interpreter, in which the package is installed or on PYTHONPATH."""
    model, tokenizer = save_translator(tmp_path / "run")
    save_self_contained(model, tmp_path / "model", tokenizer)
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*")}
    proof = prove_folder(tmp_path / "model", SENTENCES, expected_translations(model, tokenizer, SENTENCES))
    assert proof.python == ".".join(map(str, sys.version_info[:3]))
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*")} == before


@pytest.mark.slow  # 6 seconds each: another interpreter
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "config.json",
            '"AutoModel": "modeling_vanilla_transformer.VanillaTransformerModel"',
            '"x": "y.Z"',
            "AutoModel fails: ValueError: .* \\.\\.\\.$",
        ),
        ("decoder.py", "from .embeddings import", "from .nowhere import", "AutoModel fails: .*nowhere"),
    ],
)
def test_a_folder_that_lacks_something_is_not(name, old, new, message, tmp_path):
    model, tokenizer = save_translator(tmp_path / "run")
    save_self_contained(model, tmp_path / "model", tokenizer)
    path = tmp_path / "model" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"on this interpreter the folder does not work: .*{message}"):
        prove_folder(tmp_path / "model", SENTENCES, expected_translations(model, tokenizer, SENTENCES))
