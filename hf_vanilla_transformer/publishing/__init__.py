"""Sharing a model: folders and Hub repositories that load where this package is not installed."""

from .hub_folder import push_self_contained, save_self_contained

__all__ = ["push_self_contained", "save_self_contained"]
