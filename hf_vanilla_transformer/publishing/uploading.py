"""Uploading a folder to the Hub in one commit, so that a failure says what is there and what is not."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

# Files above this size, in bytes, and weights of any size are uploaded one by one before the commit: whatever else
# .gitattributes of a repository says, the Hub keeps these outside of git, where they stay if the commit fails.
_LARGE = 10 * 2**20

# What transformers prefers to weights in several files, and to any model.
_TAKEN_FIRST = {"model.safetensors", "adapter_config.json"}

_HINTS = {
    401: "log in: hf auth login, or a token in HF_TOKEN",
    403: "the token may not write there: it needs the role write, and an owner of your own",
    404: "there is no such repository or branch, or the token may not see it",
    409: "something else is changing the repository now",
    412: "something else has changed the repository meanwhile",
    429: "the Hub asks for patience",
}


class UploadError(OSError):
    """An upload that has failed; its message is one line that says what was and what was not uploaded."""


@dataclass(frozen=True)
class Upload:
    """What an upload has made of a repository.

    Args:
        repo_id: with its owner.
        address: of the commit; of the last one, where nothing had changed.
        has_changed: whether there is a new commit.
    """

    repo_id: str
    address: str
    has_changed: bool


def require_login() -> None:
    """Refuses to go on towards an upload that nobody may make.

    Raises:
        ValueError: nobody is logged in to the Hub.
    """
    if get_token() is None:
        raise ValueError("nobody is logged in to the Hub: hf auth login, or a token in HF_TOKEN; --dry_run needs none")


def with_owner(repo_id: str) -> str:
    """Puts the user who is logged in before the name of a repository.

    Args:
        repo_id: "owner/name", which is returned as it is; or "name".

    Returns:
        "owner/name".

    Raises:
        UploadError: the Hub does not say who is logged in.
    """
    if "/" in repo_id:
        return repo_id
    with _failures_named("it could not be asked who is logged in", "Nothing was uploaded"):
        return f"{HfApi().whoami()['name']}/{repo_id}"


def upload_folder(
    folder: str | Path,
    repo_id: str,
    names: Sequence[str],
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with its code",
    token: str | bool | None = None,
    say: Callable[[str], None] = lambda line: None,
    repo_type: Literal["model", "space"] = "model",
) -> Upload:
    """Uploads a folder as one commit. Done again, it takes up where it failed, and uploads nothing twice.

    Args:
        folder: in which the files are.
        repo_id: "owner/name", or "name" for a repository of one's own; made where there is none.
        names: the files, relative to the folder. Files that only the repository has stay there.
        private: whether a new repository is private; None leaves it to the Hub.
        revision: a branch; made where there is none. None for the main one.
        commit_message: of the commit.
        token: of the Hub; None means the one that is logged in.
        say: is told what is being done, a line each.
        repo_type: what kind of repository it is; a Space is one that runs Gradio.

    Returns:
        The repository and the commit.

    Raises:
        UploadError: something has failed. It says what, what was uploaded and what was not.
    """
    api = HfApi(token=token)
    kind: dict[str, Any] = {"repo_type": repo_type}
    sdk = "gradio" if repo_type == "space" else None
    operations = [CommitOperationAdd(name, Path(folder) / name) for name in names]
    with _failures_named(f"the repository {repo_id} could not be made or found", "Nothing was uploaded"):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True, space_sdk=sdk, **kind).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True, **kind)
        before = (api.space_info if repo_type == "space" else api.model_info)(repo_id, revision=revision)
    others = {each.rfilename for each in before.siblings or []} - set(names) - {".gitattributes"}
    if (misleading := sorted(_TAKEN_FIRST & others)) and any(name.endswith(".safetensors") for name in names):
        raise UploadError(
            f"{repo_id} has {misleading[0]} of another model, which would be loaded in the place of this one; remove "
            "it on the Hub. Nothing was uploaded"
        )
    if private and not before.private:
        raise UploadError(
            f"{repo_id} is there and is public; make it private on the Hub, or publish for all. Nothing was uploaded"
        )
    uploaded: list[str] = []
    for operation in operations:
        size = operation.upload_info.size
        if size <= _LARGE and not operation.path_in_repo.endswith(".safetensors"):
            continue
        say(f"uploading {operation.path_in_repo}, {size / 1e6:.1f} MB, unless the Hub has it")
        rest = [name for name in names if name not in uploaded]
        kept = f"Uploaded and kept by the Hub until the commit: {_listed(uploaded)}; not uploaded: {_listed(rest)}"
        with _failures_named(f"{operation.path_in_repo} could not be uploaded to {repo_id}", kept):
            api.preupload_lfs_files(repo_id, [operation], revision=revision, free_memory=False, **kind)
        uploaded.append(operation.path_in_repo)
    say(f"committing {len(names)} files")
    rest = [name for name in names if name not in uploaded]
    kept = f"Uploaded and kept by the Hub: {_listed(uploaded)}; not uploaded: {_listed(rest)}"
    kept += "; if the answer alone was lost, the commit is there"
    with _failures_named(f"the commit to {repo_id} failed, without which nothing is to be seen there", kept):
        commit = api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision, **kind)
    with _failures_named("it could not be seen whether all is there", f"The commit was made: {commit.commit_url}"):
        missing = sorted(set(names) - set(api.list_repo_files(repo_id, revision=revision, **kind)))
    if missing:
        raise UploadError(
            f"{commit.commit_url} is there, but {_listed(missing)} is missing: a .gitignore of the repository keeps "
            "files away; remove it there, and run this again"
        )
    if others:
        say(f"{repo_id} has other files, too, which stay as they were: {_listed(sorted(others))}")
    return Upload(repo_id, commit.commit_url, commit.oid != before.sha)


@contextmanager
def _failures_named(what: str, state: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the Hub, of the network, of the library: users want to know how things stand
        again = "Run the same command again: what is there is not uploaded twice"
        raise UploadError(f"{what}: {_reason(error)}. {state}. {again}") from error


def _reason(error: BaseException) -> str:
    """What the Hub said, in one line, without the address, which may be signed."""
    status = None
    for each in _causes(error):
        if isinstance(each, HfHubHTTPError):
            status = each.response.status_code
            said = each.server_message or each.response.reason_phrase or ""
            hint = _HINTS.get(status, "the Hub has trouble; try later" if status >= 500 else "")
            return " ".join(f"{status} {said}".split()) + (f" ({hint})" if hint else "")
    last = _causes(error)[-1]
    text = re.sub(r"\?[^\s'\"]*", "", " ".join(str(last).split()))
    return f"{type(last).__name__}: {text}" if text else type(last).__name__


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes


def _listed(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names) or "nothing"
    return f"{', '.join(names[:3])} and {len(names) - 3} more"
