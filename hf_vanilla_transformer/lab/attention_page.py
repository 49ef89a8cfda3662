"""One page of HTML on which a reader points at a token and sees what each head attends to; it needs no network."""

import json
from pathlib import Path

from .attention_maps import AttentionMaps
from .heads import KINDS

_TEMPLATE = Path(__file__).with_name("attention_page.html")
_PLACE = "{{maps}}"  # in the template, of the data
_DIGITS = 4  # of a weight


def attention_page(maps: AttentionMaps, model_name: str) -> str:
    """Writes the page, with all weights, its style and its program in it.

    Args:
        maps: of a sentence.
        model_name: what to call the model.

    Returns:
        HTML.
    """
    kinds = []
    for kind, title in KINDS.items():
        rows, columns = maps.axes(kind)
        weights = [
            [[[round(weight, _DIGITS) for weight in row] for row in head] for head in layer]
            for layer in maps.weights[kind].tolist()
        ]
        allowed = maps.may_attend(kind).int().tolist()
        kinds.append(
            {"name": kind, "title": title, "rows": rows, "columns": columns, "weights": weights, "allowed": allowed}
        )
    before, after = _TEMPLATE.read_text(encoding="utf-8").split(_PLACE)
    data = {"model": model_name, "sentence": maps.sentence, "translation": maps.translation, "kinds": kinds}
    return before + _as_script_data(data) + after


def _as_script_data(data: object) -> str:
    """JSON for a script element: nothing in it can end the element, begin a comment, or be taken for an address."""
    text = json.dumps(data, separators=(",", ":"))  # all characters beyond ASCII as \uXXXX
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.replace("/", "\\/")
