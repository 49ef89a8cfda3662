"""Sharing a model: folders and Hub repositories that load where this package is not installed."""

from .hub_folder import push_self_contained, save_self_contained
from .model_card import model_card

__all__ = ["model_card", "push_self_contained", "save_self_contained"]
