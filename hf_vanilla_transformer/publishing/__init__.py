"""Sharing a model: checkpoints with everything that belongs to them, and folders that load without this package."""

from .card_file import CardFile, read_card
from .card_index import index_text, write_index
from .hub_folder import push_self_contained, save_self_contained
from .model_card import model_card, render_card
from .public_recipe import PublicPaths
from .publication import ProvenOn, Published, UnfitFolderError, publish
from .release import read_results, refresh_card, release
from .space import publish_space
from .uploading import UploadError

__all__ = [
    "CardFile",
    "ProvenOn",
    "PublicPaths",
    "Published",
    "UnfitFolderError",
    "UploadError",
    "index_text",
    "model_card",
    "publish",
    "publish_space",
    "push_self_contained",
    "read_card",
    "read_results",
    "refresh_card",
    "release",
    "render_card",
    "save_self_contained",
    "write_index",
]
