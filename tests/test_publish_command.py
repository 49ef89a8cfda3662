"""The command `publish`: its summary, its errors, and its exit status."""

import pytest
from commanding import run, save_translator
from hub_stub import running_hub

from hf_vanilla_transformer.commands import publish as command
from hf_vanilla_transformer.commands.publish import main
from hf_vanilla_transformer.publishing import Published, publication
from hf_vanilla_transformer.publishing.proof import Proof

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of huggingface_hub itself

SENTENCES = ["--sentence", "a b", "--sentence", "C A"]
PROOF = Proof("this interpreter", "3.11.7", "2.13.0", "5.24.0", was_hidden=True)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "prove_folder", lambda *words, **options: PROOF)
    untrained, _ = save_translator(tmp_path / "en-de")
    untrained.generation_config.update(num_beams=1, max_extra_tokens=3)  # which takes no time
    untrained.generation_config.save_pretrained(tmp_path / "en-de")
    (tmp_path / "en-de" / "notes.txt").write_text("mine")
    return tmp_path / "en-de"


def test_a_dry_run_lists_files_with_sizes_and_says_what_was_proven(model, tmp_path):
    done = run(main, model, "--repo_id", "me/en-de", "--dry_run", "--output", tmp_path / "built", *SENTENCES)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    files = {path.relative_to(tmp_path / "built").as_posix(): path for path in (tmp_path / "built").rglob("*")}
    listed = {line.split()[-1]: int(line.split()[0].replace(",", "")) for line in lines if " bytes  " in line}
    total = listed.pop("files")
    assert listed == {name: path.stat().st_size for name, path in files.items()}
    assert total == sum(listed.values())
    rest = [line.split(maxsplit=1) for line in lines if " bytes  " not in line]
    said = [f"{first} {second}" for first, second in rest]
    assert "Left out: notes.txt" not in said  # the title is two words
    assert any(line.startswith("Left out:") and line.endswith(" notes.txt") for line in lines)
    assert any(line.startswith("Proven on:") and line.endswith(f" {PROOF}") for line in lines)
    assert any(line.startswith("Not proven on:") and "--prove_on oldest" in line for line in lines)
    assert lines[-1].split(maxsplit=1) == ["Uploaded:", "nothing (--dry_run)"]
    steps = [line for line in done.stderr.splitlines() if line.startswith("program: ")]
    assert steps[-1] == "program: proving the folder with this interpreter"


def test_an_upload_ends_with_its_address_and_a_second_one_says_that_nothing_changed(model):
    with running_hub() as hub:
        words = [model, "--repo_id", "me/en-de", "--private", "--revision", "v1", "--commit_message", "One", *SENTENCES]
        first, second = run(main, *words), run(main, *words)
    commit = hub.repositories["me/en-de"].branches["v1"][-1]
    address = f"{hub.address}/me/en-de/commit/{commit.sha}"
    assert first.stdout.splitlines()[-1].split() == ["Uploaded:", address]
    assert second.stdout.splitlines()[-1].split() == ["Unchanged:", address]
    assert commit.message == "One"
    assert hub.repositories["me/en-de"].private


def test_findings_are_a_line_each_and_the_last_line_says_what_to_do(model):
    (model / "results.json").write_text('{"x": "/home/somebody/run",\n "y": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"}')
    done = run(main, model, "--dry_run", *SENTENCES)
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert errors[:2] == [
        "program: error: results.json:1: path of this or another machine: /home/somebody/run",
        "program: error: results.json:2: token of Hugging Face: hf_AbC...",
    ]
    assert len(errors) == 3
    assert errors[2].startswith(f"program: error: {model} must not be published as it is")
    assert run(main, model, "--dry_run", "--exclude", "results.json", *SENTENCES).returncode == 0


def test_a_failed_upload_is_one_line(model):
    with running_hub() as hub:
        hub.fail("POST", "/api/repos/create", 403)
        done = run(main, model, "--repo_id", "us/en-de", *SENTENCES)
    (line,) = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert line == done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert "us/en-de could not be made or found: 403 injected failure 403 (the token may not write there" in line
    assert "Nothing was uploaded. Run the same command again" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--dry_run"], "there is no folder nowhere"),
        (["MODEL", "--dry_run"], "translates 2 sentences or more, and there are 0"),
        (["MODEL", "--dry_run", "--private"], "--private has no effect with --dry_run"),
        (["MODEL", "--dry_run", "--revision", "x"], "--revision has no effect with --dry_run"),
        (["MODEL", "--dry_run", "--commit_message", "x"], "--commit_message has no effect with --dry_run"),
        (["MODEL", "--overwrite"], "--overwrite has no effect without --output"),
        (["MODEL", "--constraint", "x"], "`constraint` has no effect without versions"),
        (["MODEL", "--dry_run", "--prove_on", "new"], "'new' is not a version of transformers"),
        (["MODEL", "--dry_run", "--include", "*.zip"], "--include '*.zip' fits no file"),
        (["MODEL", "--dry_run", "--repo_id", "a b"], "`name`='a b' is not allowed; allowed: a name of the Hub"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(words, message, model):
    assert message in run(main, *[model if word == "MODEL" else word for word in words]).error


def test_ctrl_c_is_one_line(model, monkeypatch):
    def interrupted(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "publish", interrupted)
    done = run(main, model, *SENTENCES)
    assert (done.returncode, done.stderr) == (130, "program: interrupted; the same command can be repeated\n")


def test_files_of_folders_that_are_left_out_are_counted():
    left_out = ["a/1", "a/2/3", "b.txt", "c/4"]
    lines = command.summary_lines(Published({}, left_out, {}, [], [], [], None), None)
    assert [line.split(":")[1].strip() for line in lines if line.startswith("Left out")] == [
        "b.txt", "a/ (2 files)", "c/ (1 file)",
    ]  # fmt: skip
