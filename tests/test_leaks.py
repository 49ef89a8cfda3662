"""Secrets, paths and names that must not be published, in each kind of file; and what looks alike and may be."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hf_vanilla_transformer
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.publishing import leaks
from hf_vanilla_transformer.publishing.leaks import find_leaks, names_of_this_machine

SECRETS = {
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345": "token of Hugging Face",
    "sk-proj-abcdefghijklmnop_qrstuvwx": "key of OpenAI or Anthropic",
    "AKIAIOSFODNN7EXAMPLE": "key of AWS",
    "AIza" + "a1-_b" * 7: "key of Google",
    "ghp_" + "aB3" * 12: "token of GitHub",
    "github_pat_" + "11AABB_" * 4: "token of GitHub",
    "glpat-abcdefghij0123456789": "token of GitLab",
    "xoxb-123456789012-abcdefghijkl": "token of Slack",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "private key",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN": "signed token (JWT)",
    "https://me:geheim@example.org/simple": "password in an address",
    "smtp://someone%40example.org:geheim@mail.example.org": "password in an address",
    '"wandb_api_key": "0123456789abcdef"': "password or key",
    "hub_token: abcdefgh12345678": "password or key",
    "DB_PASSWORD='correct horse'": "password or key",
    "aws_secret_access_key = wJalrXUtnFEMIK7MDENG": "password or key",
    "private_key: 0123456789abcdef": "password or key",
    '"accessToken": "0123456789abcdef"': "password or key",
    "x-api-key: 0123456789abcdef": "password or key",
    "Authorization: Bearer 0123456789abcdef": "password of a request",
}
PATHS = [
    "/home/somebody/data/train.en", "/root/runs/en-de", "/root", "/tmp/x.json", "/Users/somebody/en-de",
    "/work/train/runs", "/mnt/disk/corpus", "/data/wmt14/train.en", "/scratch/me/run", "/var/lib/x",
    "/content/drive", r"C:\Users\somebody\data", r"C:\\Users\\somebody\\data", "C:/Users/somebody/data",
]  # fmt: skip
HARMLESS = [
    '"eos_token": "</s>"', '"hub_token": "<HUB_TOKEN>"', '"push_to_hub_token": null', "new_tokens: 2000 tokens",
    "https://huggingface.co/datasets/bentrevett/multi30k", "https://example.org/data/train.en",
    "see https://example.org/home/page and/or/tmp", "model.generate(**inputs, api_key=None)", "sk-learn", "hf_hub",
    "data/multi30k/train.en", "../shared/data/x", "~/data/x", "runs/en-de", "</data/p>", "1/root", "12:30/home",
    "Authorization: Bearer <token>", "the keyboard: black",
    "password: <yours>", "api_key = os.environ['KEY']", "token = get_token()", "a 3:4 ratio @ 5", "Q:\\nWho?",
]  # fmt: skip


def found(tmp_path, text, name="results.json", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(find_leaks(path, name, **options))


@pytest.mark.parametrize(
    ("secret", "kind"), SECRETS.items(), ids=[f"{kind}-{i}" for i, kind in enumerate(SECRETS.values())]
)
def test_a_secret_is_found_and_not_shown(secret, kind, tmp_path):
    lines = found(tmp_path, f"first line\nbefore {secret} after\n", "notes.md")
    assert any(line.startswith(f"notes.md:2: {kind}: ") for line in lines), lines
    assert not any(secret in line for line in lines)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("around", ['"{}"', "({})", "to={},", "file://{}", "`{}`", "here:{}"])
def test_a_path_of_a_machine_is_found(path, around, tmp_path):
    if around == "file://{}" and not path.startswith("/"):
        pytest.skip("no such address")
    (line,) = found(tmp_path, f"x\ny\n{around.format(path)}\n")
    assert line == f"results.json:3: path of this or another machine: {path}"


@pytest.mark.parametrize("leak", ["hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "/home/somebody/data", "whale"])
@pytest.mark.parametrize("end", ["\n", "\t", "\r\n"])
def test_the_end_of_a_line_in_json_is_no_part_of_what_follows(leak, end, tmp_path):
    (line,) = found(tmp_path, json.dumps({"x": f"see{end}{leak}"}), known_names=["whale"])
    assert line.startswith("results.json:1: ")


def test_a_path_of_windows_is_found_once_and_whole(tmp_path):
    assert found(tmp_path, r"C:\Users\me\notes\runs") == [
        r"results.json:1: path of this or another machine: C:\Users\me\notes\runs"
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_texts_of_windows_are_read(encoding, tmp_path):
    lines = found(tmp_path, "\r\nhf_AbCdEfGhIjKlMnOpQrStUvWxYz012345\r\n".encode(encoding), "NOTICE.txt")
    assert lines == ["NOTICE.txt:2: token of Hugging Face: hf_AbC..."]


def test_a_vocabulary_has_numbers_and_no_passwords(tmp_path):
    assert found(tmp_path, '{"password": 123456}', "tokenizer.json") == []
    assert found(tmp_path, '{"password": 123456}', "results.json") != []


@pytest.mark.parametrize("text", HARMLESS)
def test_what_looks_alike_is_let_through(text, tmp_path):
    assert found(tmp_path, text, "README.md") == []


@pytest.mark.parametrize("name", ["curves.png", "outputs.txt", "recipe.yaml", "decoding.py", "tokenizer.json", "x"])
def test_every_kind_of_file_is_read_whole(name, tmp_path):
    content = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) + b"\0/home/somebody/run\0 hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"
    lines = found(tmp_path, content, name)
    assert ["path" in line for line in lines] == [True, False]


def test_weights_are_read_as_far_as_they_are_described(tmp_path):
    weights = {"embedding": torch.frombuffer(bytearray(b"/home/me"), dtype=torch.uint8)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt", "made_in": "/home/somebody/run"})
    (line,) = find_leaks(tmp_path / "model.safetensors", "model.safetensors")
    assert line.endswith("path of this or another machine: /home/somebody/run")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not list(find_leaks(tmp_path / "model.safetensors", "model.safetensors"))


def test_the_token_that_is_logged_in_is_found_whatever_it_looks_like(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an-odd-one")
    assert found(tmp_path, '{"x": "an-odd-one"}') == ["results.json:1: token of Hugging Face: an-odd..."]


def test_the_folders_of_this_machine_are_found_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "_paths_of_this_machine", lambda: ["/odd/place"])
    (line,) = found(tmp_path, "in /odd/place/runs")
    assert line.endswith(": /odd/place")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in leaks._paths_of_this_machine()
    assert not any(len(Path(each).parts) < 3 for each in leaks._paths_of_this_machine())


@pytest.mark.parametrize(
    ("name", "text", "is_found"),
    [
        ("results.json", '{"host": "whale"}', True),
        ("recipe.yaml", "run_name: whale", True),
        ("results.json", '{"x": "whales"}', False),
        ("README.md", "A whale swims.", False),
        ("README.md", "mail whale@sea.org or ../whale", True),
        ("decoding.py", "whale = max(whales)", False),
        ("tokenizer.json", '{"whale": 7}', False),
        ("outputs.txt", "Ein whale", False),
    ],
)
def test_names_are_found_where_they_are_not_words_of_a_language(name, text, is_found, tmp_path):
    assert bool(found(tmp_path, text, name, known_names=["whale"])) == is_found


@pytest.mark.parametrize("host", ["whale.sea.org", "localhost", "me-pc"])
def test_names_of_user_and_machine_that_say_something(host, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr("getpass.getuser", lambda: "antonia")
    assert set(names_of_this_machine()) - {"whale", "whale.sea.org", "me-pc"} == {"antonia"}
    assert "localhost" not in names_of_this_machine()
    assert "antonia" not in names_of_this_machine("Antonia/en-de")
    assert "antonia" in names_of_this_machine("antoniadis/en-de")
    monkeypatch.setattr("getpass.getuser", lambda: "antonia.x")
    assert "antonia.x" not in names_of_this_machine("antonia.x/en-de")


def test_a_user_without_a_name_is_no_trouble(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert names_of_this_machine() == []


def test_what_is_allowed_is_no_finding(tmp_path):
    text = "/tmp/example and /home/somebody"
    assert len(found(tmp_path, text)) == 2
    assert found(tmp_path, text, allowed=["/tmp/example"]) == [
        "results.json:1: path of this or another machine: /home/somebody"
    ]


def test_nothing_is_found_in_our_own_code_and_tokenizers(tmp_path):
    tokenizer = train_tokenizer(texts=["a home in /data, a root, hf_ and sk-"] * 9, vocab_size=300)
    tokenizer.save_pretrained(tmp_path)
    files = [*Path(hf_vanilla_transformer.__file__).parent.glob("*.py"), *tmp_path.glob("*.json")]
    assert [line for path in files for line in find_leaks(path, path.name, names_of_this_machine())] == []
