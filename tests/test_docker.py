"""The image of the service: what can be said of a Dockerfile without building it."""

import http.server
import json
import os
import re
import threading
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hf_vanilla_transformer.commands import serve

PROJECT = Path(__file__).resolve().parents[1]
DOCKERFILE = PROJECT / "scripts" / "docker" / "Dockerfile"


def instructions():
    """The instructions of the file, by stage: pairs of a word and the rest."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages = [[]]
    for line in filter(None, map(str.strip, text.replace("\\\n", " ").splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


BEFORE, BUILD, FINAL = instructions()
ARGUMENTS = dict(rest.split("=", 1) for word, rest in BEFORE + BUILD if word == "ARG")


def filled_in(text):
    """Arguments of the build replaced by their defaults."""
    return re.sub(r"\$\{(\w+)\}", lambda match: ARGUMENTS[match[1]], text)


def only(word):
    """What the final stage gives one instruction, which it has once."""
    (rest,) = [rest for each, rest in FINAL if each == word]
    return rest


def command_line():
    """The words by which a container begins, which no shell reads."""
    return json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))


def is_sent(path):
    """Whether the context of a build has a path: the last line of .dockerignore that matches it or a parent decides."""
    sent, parents = True, [path, *path.parents]
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#"):
            names = [str(each) for each in parents if str(each) != "."]
            # `*` matches no slash, and `**/` any folders or none.
            kind = pattern.removeprefix("**/")
            if any(fnmatch(Path(name).name if kind != pattern else name, kind) for name in names):
                sent = line.startswith("!")
    return sent


def test_both_stages_are_the_same_slim_python_of_a_stated_version_that_serve_runs_on():
    assert [filled_in(rest).split()[0] for word, rest in BUILD + FINAL if word == "FROM"] == [ARGUMENTS["BASE"]] * 2
    major, minor = re.fullmatch(r"python:(\d+)\.(\d+)(?:\.\d+)?-slim-\w+", ARGUMENTS["BASE"]).groups()
    assert (int(major), int(minor)) >= (3, 11)


def test_nothing_is_run_or_copied_after_the_user_is_no_longer_root():
    words = [word for word, _ in FINAL]
    assert max(index for index, word in enumerate(words) if word in ("RUN", "COPY", "ADD")) < words.index("USER")
    assert int(only("USER")) > 0  # a number, or runAsNonRoot of Kubernetes cannot tell
    assert any(word == "RUN" and f"--uid {only('USER')} " in rest for word, rest in FINAL)


def test_torch_is_the_tested_one_for_cpus_and_comes_before_the_package():
    pins = [line for line in (PROJECT / ".ci" / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    installs = [filled_in(rest) for word, rest in BUILD if word == "RUN" and "pip install" in rest]
    assert installs[0].endswith(f"/cpu {pins[0]}")
    assert any(word == "ENV" and "PIP_NO_CACHE_DIR=1" in rest for word, rest in BUILD)
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    extras = re.search(r"\.\[(.+)\]", installs[1])[1].split(",")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert {"serve", "ctranslate2"} <= set(extras) <= project["optional-dependencies"].keys()


def inside(place):
    """Files and folders of a folder, but for those that other tests may be writing at the moment."""
    for folder, folders, files in os.walk(place):
        folders[:] = set(folders) - {"__pycache__", ".ctranslate2"}
        yield from (Path(folder) / name for name in [*folders, *files])


def test_what_is_copied_exists_and_is_sent_to_the_builder():
    sources = []
    for word, rest in BUILD + FINAL:
        if word == "COPY" and not rest.startswith("--from=build "):
            sources += filled_in(rest).split()[:-1]
    assert {"pyproject.toml", "hf_vanilla_transformer", ARGUMENTS["MODEL"]} <= set(sources)
    for path in [each for source in sources for each in [PROJECT / source, *inside(PROJECT / source)]]:
        assert path.exists()
        assert is_sent(path.relative_to(PROJECT)), path
    for path in ("tests/test_docker.py", ".git/config", "runs/x/checkpoint-9/optimizer.pt", "scripts/serve.py"):
        assert not is_sent(Path(path)), path
    assert is_sent(Path("runs/x/model.safetensors"))


def test_what_the_package_is_built_from_is_copied():
    """The wheel needs the files that pyproject.toml names."""
    text = (PROJECT / "pyproject.toml").read_text()
    copied = " ".join(filled_in(rest) for word, rest in BUILD if word == "COPY")
    for key in ("readme", "license-files"):
        assert re.search(rf"^{key} = \W*([\w.]+)", text, re.MULTILINE)[1] in copied.split()
    for module in re.search(r"py-modules = \[(.+)\]", text)[1].split(","):
        assert f"scripts/{module.strip().strip(chr(34))}.py" in copied.split()


def test_a_container_begins_with_a_command_that_serve_takes():
    program, verb, *options = command_line()
    assert (program, verb) == ("vanilla-transformer", "serve")
    args = serve.make_parser(None).parse_args(options)
    assert (args.host, args.port) == ("0.0.0.0", int(only("EXPOSE")))
    (model,) = args.model
    assert any(word == "COPY" and rest == "--from=build /models /models" for word, rest in FINAL)
    assert any(word == "COPY" and rest.endswith(f" {model}") for word, rest in BUILD)
    assert args.shutdown_seconds < 10  # after which `docker stop` kills
    later = serve.make_parser(None).parse_args([*options, "--shutdown_seconds", "55"])
    assert later.shutdown_seconds == 55  # as the file says


def test_whoever_the_user_is_there_is_a_place_for_conversions():
    settings = dict(pair.split("=", 1) for word, rest in FINAL if word == "ENV" for pair in rest.split())
    assert Path("/tmp") in Path(settings["HF_ASSETS_CACHE"]).parents


def test_the_file_says_who_may_ask():
    text = DOCKERFILE.read_text()
    assert f"{serve.TOKEN_VARIABLE}=" in text
    assert "there is no token" in re.sub(r"\n# ", " ", text)


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_asks_the_port_and_fails_on_what_is_not_healthy(status):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    program, option, code = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    assert (program, option) == ("python", "-c")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        here = code.replace(f":{only('EXPOSE')}/", f":{server.server_port}/")
        assert here != code
        if status == 200:
            exec(here, {})
        else:
            with pytest.raises(OSError, match="503"):
                exec(here, {})
        thread.join()
    assert asked == ["/health"]
