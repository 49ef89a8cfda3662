"""Uploading a run to the Hub while it trains: the model and what describes it, and nothing else of the folder."""

import shutil
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Seq2SeqTrainer, TrainerControl, TrainerState
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from .arguments import VanillaTransformerTrainingArguments
from .checkpoints import UPLOADING

# Everything else in the folder of a run is the run's own: optimizer, checkpoints that are being written, text.
MODEL_FILES = (
    *("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *("adapter_config.json", "adapter_model.safetensors", "adapter/adapter_*", "adapter/*.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "README.md", "results.json", "curves.png"),
)


def upload_checkpoint(checkpoint: Path, whole_in: str | None, repo_id: str, message: str, **options: Any) -> Future:
    """Uploads the model of a checkpoint in the background.

    Args:
        checkpoint: its folder, which may be removed while this goes on.
        whole_in: the folder of the repository for the whole checkpoint, optimizer included; None for the model alone.
        repo_id: of the Hub.
        message: of the commit.
        **options: `token` and `revision`.

    Returns:
        The upload.
    """
    # One for each upload: they go on in the background, and the first that ends removes its own.
    copy = checkpoint.parent / UPLOADING / f"{checkpoint.name}-{'whole' if whole_in else 'model'}"
    if whole_in is None:
        copy.mkdir(parents=True, exist_ok=True)
        for pattern in MODEL_FILES:
            for path in checkpoint.glob(pattern):
                shutil.copyfile(path, copy / path.name)
    else:
        shutil.copytree(checkpoint, copy, dirs_exist_ok=True)
    api = HfApi(token=options.pop("token", None))

    def upload() -> Any:
        try:
            return api.upload_folder(
                repo_id=repo_id, folder_path=copy, path_in_repo=whole_in, commit_message=message, **options
            )
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    return api.run_as_future(upload)


def upload_model(folder: str | Path, repo_id: str, message: str, blocking: bool = True, **options: Any) -> Any:
    """Uploads the model that a run has saved, with its numbers.

    Args:
        folder: of the run.
        repo_id: of the Hub.
        message: of the commit.
        blocking: whether to wait until it is done.
        **options: `token` and `revision`.

    Returns:
        The commit; a future of it, if not `blocking`.
    """
    api = HfApi(token=options.pop("token", None))
    upload = partial(
        api.upload_folder,
        repo_id=repo_id,
        folder_path=folder,
        commit_message=message,
        allow_patterns=list(MODEL_FILES),
        **options,
    )
    return upload() if blocking else api.run_as_future(upload)


class HubUploads(Seq2SeqTrainer):
    """The part of the trainer that uploads a run."""

    args: VanillaTransformerTrainingArguments
    control: TrainerControl
    state: TrainerState
    push_in_progress: PushInProgress | None

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Does nothing: transformers would upload the whole folder, and a checkpoint that is not sealed yet."""

    def _upload(self, checkpoint: Path) -> None:
        strategy, push = self.args.hub_strategy, self.push_in_progress
        is_busy = push is not None and not push.is_done()
        if strategy == HubStrategy.END or (is_busy and not self.args.hub_always_push):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        folders = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: checkpoint.name}
        options = {"token": self.args.hub_token, "revision": self.args.hub_revision}
        message = f"Training in progress, update {self.state.global_step}"
        places = [None, folders[strategy]] if strategy in folders else [None]
        jobs = [upload_checkpoint(checkpoint, place, str(self.hub_model_id), message, **options) for place in places]
        self.push_in_progress = PushInProgress([*(push.jobs if push is not None and is_busy else []), *jobs])

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Uploads the model that the run has saved in its folder, with its numbers and a card, and nothing else.

        Args:
            commit_message: of the commit.
            blocking: whether to wait until it is done.
            token: of the Hub; None for the arguments' `hub_token`, or the one that is logged in.
            revision: the branch; None for the arguments' `hub_revision`.
            **kwargs: for transformers' `create_model_card`; and `private`.

        Returns:
            The commit, or a future of it; None for all processes but the first.
        """
        token = token or self.args.hub_token
        self.args.hub_private_repo = kwargs.pop("private", self.args.hub_private_repo)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token)
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if not (Path(self.args.output_dir) / "README.md").exists():
            self.create_model_card(model_name=str(self.hub_model_id).rpartition("/")[2], **kwargs)
        self._finish_current_push()
        revision = revision or self.args.hub_revision
        message = commit_message or "End of training"
        options = {"token": token, "revision": revision}
        return upload_model(self.args.output_dir, str(self.hub_model_id), message, blocking, **options)


__all__ = ["MODEL_FILES", "HubUploads", "upload_checkpoint", "upload_model"]
