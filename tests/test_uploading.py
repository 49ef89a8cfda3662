"""Uploads against a stub of the Hub: what is there afterwards, what a failure says, and what is sent once more."""

import hashlib
import re

import pytest
from hub_stub import TOKEN, running_hub

from hf_vanilla_transformer.publishing.uploading import Upload, UploadError, upload_folder

# Of huggingface_hub itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

FILES = {
    "README.md": b"---\nlicense: mit\n---\n", "config.json": b"{}", "model-1.safetensors": b"one" * 100,
    "model-2.safetensors": b"two" * 100, ".eval_results/bleu.yaml": b"[]",
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(server):
    """The one server, as if it were new."""
    for state in (server.repositories, server.objects, server.requests, server.faults):
        state.clear()
    server.gitignore = ()
    return server


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def upload(folder, repo_id="me/model", names=tuple(FILES), **options):
    return upload_folder(folder, repo_id, names, **options)


def test_an_upload_is_one_commit_with_all_files_and_no_others(hub, folder):
    (folder / "notes.txt").write_text("mine")
    done = upload(folder, commit_message="First of all")
    assert {name: content for name, content in hub.files("me/model").items() if name != ".gitattributes"} == FILES
    _, commit = hub.repositories["me/model"].branches["main"]
    assert commit.message == "First of all"
    assert done == Upload("me/model", f"{hub.address}/me/model/commit/{commit.sha}", has_changed=True)
    assert not hub.repositories["me/model"].private


def test_a_name_without_an_owner_becomes_a_repository_of_ones_own(hub, folder):
    assert upload(folder, "model").repo_id == "me/model"
    assert set(hub.files("me/model")) > set(FILES)


def test_done_again_nothing_is_made_or_uploaded_a_second_time(hub, folder):
    first = upload(folder)
    sent = len(hub.asked("PUT", "/objects/"))
    assert sent == 2
    again = upload(folder)
    assert (again.address, again.has_changed) == (first.address, False)
    assert len(hub.asked("PUT", "/objects/")) == sent
    assert len(hub.asked("POST", "/commit/")) == 1
    assert list(hub.repositories) == ["me/model"]


def test_only_what_has_changed_is_committed(hub, folder):
    upload(folder)
    (folder / "config.json").write_bytes(b'{"d_model": 16}')
    assert upload(folder).has_changed
    assert hub.repositories["me/model"].branches["main"][-1].changed == ["config.json"]
    assert len(hub.asked("PUT", "/objects/")) == 2


def test_a_branch_is_made_and_the_main_one_stays_as_it_is(hub, folder):
    upload(folder, revision="v1.0")
    upload(folder, revision="v1.0")
    assert set(hub.files("me/model", "v1.0")) > set(FILES)
    assert set(hub.files("me/model")) == {".gitattributes"}


def test_weights_of_another_model_that_would_be_loaded_first_are_refused(hub, folder):
    (folder / "model.safetensors").write_bytes(b"of another")
    upload(folder, names=["model.safetensors", "README.md"])
    with pytest.raises(UploadError, match=r"me/model has model.safetensors of another model, .* Nothing was uploaded"):
        upload(folder)
    assert set(hub.files("me/model")) - {".gitattributes"} == {"model.safetensors", "README.md"}


def test_other_files_of_the_repository_stay_and_are_named(hub, folder):
    (folder / "notes.txt").write_text("mine")
    upload(folder, names=["notes.txt"])
    said = []
    upload(folder, say=said.append)
    assert set(hub.files("me/model")) >= {*FILES, "notes.txt"}
    assert said[-1] == "me/model has other files, too, which stay as they were: notes.txt"
    said.clear()
    upload(folder, names=[*FILES, "notes.txt"], say=said.append)
    assert not any("other files" in line for line in said)


def test_a_new_repository_can_be_private_and_a_public_one_is_not_taken_for_it(hub, folder):
    upload(folder, private=True)
    assert hub.repositories["me/model"].private
    upload(folder, private=True)
    hub.repositories["me/model"].private = False
    (folder / "config.json").write_bytes(b"secret")
    with pytest.raises(UploadError, match="me/model is there and is public"):
        upload(folder, private=True)
    assert hub.files("me/model")["config.json"] == b"{}"


NOTHING, ONE = (
    "Nothing was uploaded",
    "the Hub until the commit: model-1.safetensors; not uploaded: README.md, config.js",
)
BOTH = "kept by the Hub: model-1.safetensors, model-2.safetensors; not uploaded: README.md, config.json, .eval_results"
BEFORE_ANY = "the Hub until the commit: nothing; not uploaded: README.md, config.json, model-1.safetensors and 2 more"
OBJECT = f"/objects/{hashlib.sha256(FILES['model-2.safetensors']).hexdigest()}"

# Where it fails: the request; the state of which the message has to tell; files that are sent by the second try.
STAGES = {
    "create": ("POST", "/api/repos/create", NOTHING, 2),
    "look": ("GET", "/api/models/me/model", NOTHING, 2),
    "preupload": ("POST", "/preupload/", BEFORE_ANY, 2),
    "batch": ("POST", "/objects/batch", BEFORE_ANY, 2),
    "second file": ("PUT", OBJECT, ONE, 1),
    "validation": ("POST", "/api/validate-yaml", BOTH, 0),
    "commit": ("POST", "/commit/", BOTH, 0),
}
REASONS = {
    401: "401 .*log in: hf auth login",
    403: "403 .*the token may not write there",
    500: "500 injected failure 500 .the Hub has trouble; try later",
    None: "(RemoteProtocolError|ReadError)",
}
# Of the many, each stage with one status and each status at one stage; the answer to `create` may be 403 where the
# repository is there all the same, which the library finds out.
CASES = [(stage, 500) for stage in STAGES] + [("commit", status) for status in REASONS if status != 500]
CASES += [("create", 401), ("create", None), ("second file", None), ("second file", 403), ("preupload", 401)]


@pytest.mark.parametrize(("stage", "status"), CASES)
def test_a_failure_says_what_is_there_and_the_same_call_completes_it(stage, status, hub, folder):
    method, part, state, sent_later = STAGES[stage]
    hub.fail(method, part, status, times=6 if stage in ("look", "preupload", "batch", "second file") else 1)
    with pytest.raises(UploadError) as caught:
        upload(folder)
    message = str(caught.value)
    assert state in message
    assert re.search(REASONS[status], message), message
    assert "Run the same command again" in message
    assert "\n" not in message
    assert TOKEN not in message
    assert "me/model" not in hub.repositories or set(hub.files("me/model")) == {".gitattributes"}

    hub.faults.clear()
    sent_before = len(hub.asked("PUT", "/objects/"))
    assert upload(folder).has_changed
    assert len(hub.asked("PUT", "/objects/")) - sent_before == sent_later
    assert {name: hub.files("me/model")[name] for name in FILES} == FILES
    assert len(hub.repositories["me/model"].branches["main"]) == 2  # the first one, and ours


def test_a_file_that_the_hub_keeps_in_git_is_not_there_without_the_commit(hub, folder):
    (folder / "config.json").write_bytes(b"{" + b" " * 2 * 10**6 + b"}")
    hub.fail("POST", "/commit/", 500)
    with pytest.raises(UploadError) as caught:
        upload(folder)
    assert BOTH in str(caught.value)
    hub.faults.clear()
    upload(folder)
    assert len(hub.files("me/model")["config.json"]) > 2 * 10**6


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, folder):
    hub.fail("POST", "/commit/", when="after")
    with pytest.raises(UploadError, match="if the answer alone was lost, the commit is there"):
        upload(folder)
    done = upload(folder)
    assert not done.has_changed
    assert len(hub.repositories["me/model"].branches["main"]) == 2


def test_a_conflict_is_named(hub, folder):
    hub.fail("POST", "/commit/", 409)
    with pytest.raises(UploadError, match="409 injected failure 409 .something else is changing the repository now"):
        upload(folder)


def test_a_file_that_the_repository_ignores_is_missed(hub, folder):
    hub.gitignore = ("config.json",)
    with pytest.raises(UploadError, match=r"config.json is missing: a .gitignore of the repository"):
        upload(folder)


def test_a_hub_that_cannot_be_reached_is_one_line(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match="me/model could not be made or found: ConnectError: .*Nothing"):
        upload(folder)


def test_what_is_being_done_is_told(hub, folder):
    told = []
    upload(folder, say=told.append)
    assert told == [
        "uploading model-1.safetensors, 0.0 MB, unless the Hub has it",
        "uploading model-2.safetensors, 0.0 MB, unless the Hub has it", "committing 5 files",
    ]  # fmt: skip
