"""Sharing a model: folders and Hub repositories that load where this package is not installed."""

from .hub_folder import push_self_contained, save_self_contained
from .model_card import model_card
from .publication import ProvenOn, Published, UnfitFolderError, publish
from .uploading import UploadError

__all__ = [
    "ProvenOn",
    "Published",
    "UnfitFolderError",
    "UploadError",
    "model_card",
    "publish",
    "push_self_contained",
    "save_self_contained",
]
