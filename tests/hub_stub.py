"""A small Hub on this machine: repositories, branches, large files, commits, downloads, and failures on demand.

It does what the Hub's HTTP interface does as far as uploads and downloads go, and remembers all that was asked.
"""

import base64
import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import transformers.utils.hub

TOKEN = "hf_tokenofthestubtokenofthestub"


@dataclass
class Repository:
    """Branches hold commits, the last one last; a commit holds all files of that moment."""

    private: bool
    branches: dict[str, list["Commit"]] = field(default_factory=dict)


@dataclass
class Commit:
    sha: str
    message: str
    files: dict[str, bytes]
    changed: list[str]


@dataclass
class Fault:
    """A request that fails; `when`: instead of being done, or after it has been done, so that its answer is lost."""

    method: str
    part: str
    status: int | None
    times: int
    when: str


class HubStub:
    """The state of the stub, and the server that shows it."""

    def __init__(self):
        self.repositories, self.objects, self.requests, self.faults = {}, {}, [], []
        self.gitignore = ()  # names that it ignores
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def fail(self, method, part, status=None, times=1, when="instead"):
        """Lets the next requests with `part` in their path fail with a status; None breaks the connection."""
        self.faults.append(Fault(method, part, status, times, when))

    def fault_of(self, method, path):
        for fault in self.faults:
            if fault.times and fault.method == method and fault.part in path:
                fault.times -= 1
                return fault
        return None

    def asked(self, method, part):
        return [path for done, path in self.requests if done == method and part in path]

    def files(self, name, branch="main"):
        return self.repositories[name].branches[branch][-1].files

    def environment(self, home):
        """For another process that is to take this for the Hub, with an empty cache."""
        return {
            **os.environ, "HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(home), "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1",
        }  # fmt: skip

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def running_hub():
    """A stub that this process takes for the Hub, without waiting between the tries of a request."""
    hub = HubStub()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
            patch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=lambda seconds: None))
            # Made at its first use, with the address of then.
            patch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
            patch.setenv("HF_TOKEN", TOKEN)
            patch.setenv("NO_PROXY", "127.0.0.1")
            huggingface_hub.utils._http.close_session()  # one that was offline would stay so
            yield hub
    finally:
        huggingface_hub.utils._http.close_session()
        hub.close()


def is_large(name, size):
    return name.endswith(".safetensors") or size > 10 * 2**20


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def oid(name, content):
    return hashlib.sha256(content).hexdigest() if is_large(name, len(content)) else git_oid(content)


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # an answer in one packet: headers and body in two would wait for each other

        def do_GET(self):
            self.answer("GET")

        def do_HEAD(self):
            self.answer("HEAD")

        def do_POST(self):
            self.answer("POST")

        def do_PUT(self):
            self.answer("PUT")

        def log_message(self, *args):
            pass

        def answer(self, method):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((method, path))
            fault = hub.fault_of(method, path)
            if fault is None or fault.when == "after":
                status, content, headers = self.result(method, path, body)
            if fault is not None:
                if fault.status is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, content, headers = fault.status, {"error": f"injected failure {fault.status}"}, {}
            self.send(method, status, content, headers)

        def send(self, method, status, content, headers):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if method != "HEAD":
                self.wfile.write(data)

        def result(self, method, path, body):
            writes = method in ("POST", "PUT") and not path.startswith("/objects/")  # whose addresses are signed
            if (writes or path == "/api/whoami-v2") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return 401, {"error": "Invalid credentials"}, {}
            parts = path.strip("/").split("/")
            if path == "/api/repos/create":
                return self.create(json.loads(body))
            if path == "/api/whoami-v2":
                return 200, {"name": "me"}, {}
            if path == "/api/validate-yaml":
                return 200, {"errors": [], "warnings": []}, {}
            if method == "PUT" and parts[0] == "objects":
                if hashlib.sha256(body).hexdigest() != parts[1]:
                    return 400, {"error": "another content"}, {}
                hub.objects[parts[1]] = body
                return 200, {}, {}
            if parts[0] == "verify":
                return (200, {}, {}) if json.loads(body)["oid"] in hub.objects else (404, {"error": "no object"}, {})
            if path.endswith(".git/info/lfs/objects/batch"):
                return self.batch(json.loads(body))
            if parts[:2] in (["api", "models"], ["api", "spaces"]):
                name, rest = "/".join(parts[2:4]), parts[4:]
                if name not in hub.repositories:
                    return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
                return self.of_repository(name, rest, body)
            if len(parts) > 4 and parts[2] == "resolve" and "/".join(parts[:2]) in hub.repositories:
                return self.download(hub.repositories["/".join(parts[:2])], parts[3], "/".join(parts[4:]))
            return 404, {"error": f"nothing at {path}"}, {}

        def create(self, asked):
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            address = {"url": f"{hub.address}/{name}"}
            if name in hub.repositories:
                return 409, {"error": "You already created this model repo", **address}, {}
            first = Commit("0" * 40, "initial commit", {".gitattributes": b""}, [])
            hub.repositories[name] = Repository(asked.get("visibility") == "private", {"main": [first]})
            return 200, address, {}

        def batch(self, asked):
            objects = []
            for each in asked["objects"]:
                actions = {
                    "upload": {"href": f"{hub.address}/objects/{each['oid']}"},
                    "verify": {"href": f"{hub.address}/verify/{each['oid']}"},
                }
                objects.append(each if each["oid"] in hub.objects else {**each, "actions": actions})
            return 200, {"transfer": "basic", "objects": objects}, {}

        def of_repository(self, name, rest, body):
            repository = hub.repositories[name]
            if rest[:1] == ["branch"]:
                branch = "/".join(rest[1:])
                if branch in repository.branches:
                    return 409, {"error": "Reference already exists"}, {}
                repository.branches[branch] = list(repository.branches["main"])
                return 200, {}, {}
            commit = self.find(repository, rest[1] if len(rest) > 1 else "main")
            if commit is None:
                return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
            files = commit.files
            if rest[:1] in ([], ["revision"]):
                siblings = [{"rfilename": each} for each in files]
                return 200, {"id": name, "sha": commit.sha, "private": repository.private, "siblings": siblings}, {}
            if rest[0] == "tree":
                folder = "".join(f"{each}/" for each in rest[2:])
                if folder and not any(each.startswith(folder) for each in files):
                    return 404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"}
                found = {each: content for each, content in files.items() if each.startswith(folder)}
                return 200, [self.entry(each, content) for each, content in found.items()], {}
            if rest[0] == "preupload":
                return 200, {"files": [self.upload_mode(each, files) for each in json.loads(body)["files"]]}, {}
            if rest[0] == "commit":
                return self.commit(name, rest[1], [json.loads(line) for line in body.splitlines()])
            return 404, {"error": f"nothing at {rest}"}, {}

        def entry(self, name, content):
            return {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}

        def upload_mode(self, asked, files):
            name = asked["path"]
            answer = {"path": name, "uploadMode": "lfs" if is_large(name, asked["size"]) else "regular"}
            answer["shouldIgnore"] = name in hub.gitignore
            return {**answer, "oid": oid(name, files[name])} if name in files else answer

        def find(self, repository, revision):
            if revision in repository.branches:
                return repository.branches[revision][-1]
            commits = [commit for branch in repository.branches.values() for commit in branch]
            return next((commit for commit in commits if commit.sha == revision), None)

        def commit(self, name, branch, lines):
            commits = hub.repositories[name].branches[branch]
            files, changed = dict(commits[-1].files), []
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif value["oid"] not in hub.objects:
                    return 400, {"error": f"{value['path']}: its content was not uploaded"}, {}
                else:
                    files[value["path"]] = hub.objects[value["oid"]]
                changed.append(value["path"])
            sha = hashlib.sha1(repr((commits[-1].sha, sorted(files.items()))).encode()).hexdigest()
            commits.append(Commit(sha, lines[0]["value"]["summary"], files, changed))
            return 200, {"commitUrl": f"{hub.address}/{name}/commit/{sha}", "commitOid": sha, "success": True}, {}

        def download(self, repository, revision, name):
            commit = self.find(repository, revision)
            if commit is None:
                return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
            headers = {"X-Repo-Commit": commit.sha}
            if name not in commit.files:
                return 404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"}
            content = commit.files[name]
            headers["ETag"] = f'"{oid(name, content)}"'
            if is_large(name, len(content)):
                headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            return 200, content, headers

    return Handler
