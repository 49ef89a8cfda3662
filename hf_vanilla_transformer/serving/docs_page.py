"""The description of a service for people: OpenAPI as one page without scripts and without the network."""

import json
import shlex
from html import escape
from typing import Any

_STYLE = (
    "body{max-width:60em;margin:2em auto;padding:0 1em;font:16px/1.5 sans-serif;color-scheme:light dark}"
    "pre{overflow:auto;padding:.6em;border:1px solid gray}td{padding:.1em 1em .1em 0;vertical-align:top}"
)


def docs_page(openapi: dict[str, Any]) -> str:
    """Writes the page.

    Args:
        openapi: description of the application, as `app.openapi()` makes it.

    Returns:
        HTML.
    """
    schemas = openapi.get("components", {}).get("schemas", {})
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(openapi['info']['title'])}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{escape(openapi['info']['title'])}</h1><p>{escape(openapi['info'].get('description', ''))}</p>",
        "<p>The same for programs: <a href=openapi.json>openapi.json</a></p>",
    ]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2>{escape(method.upper())} {escape(path)}</h2>")
            parts.append(f"<p>{escape(operation.get('description', ''))}</p>")
            bodies = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            bodies = [_resolved(body, schemas) for body in bodies.get("oneOf", [bodies]) if body]
            parts += [_table(body) for body in bodies]
            parts.append(f"<pre>{escape(_curl(method, path, bodies[0] if bodies else None))}</pre>")
            answers = (f"{status}: {answer['description']}" for status, answer in operation["responses"].items())
            parts.append(f"<p>{escape('; '.join(answers))}</p>")
    return "\n".join(parts)


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _table(body: dict[str, Any]) -> str:
    needed = body.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{'needed' if name in needed else escape(_default(field))}"
        f"<td>{escape(field.get('description', ''))}"
        for name, field in body.get("properties", {}).items()
    )
    return f"<p>{escape(body.get('description', ''))}</p><table>{rows}</table>"


def _default(field: dict[str, Any]) -> str:
    return f"default: {json.dumps(field['default'])}" if field.get("default") is not None else ""


def _curl(method: str, path: str, body: dict[str, Any] | None) -> str:
    if body is None:
        return f"curl http://127.0.0.1:8000{path}"
    example = {
        name: field["examples"][0] for name, field in body.get("properties", {}).items() if field.get("examples")
    }
    return f"curl -X {method.upper()} http://127.0.0.1:8000{path} --json {shlex.quote(json.dumps(example))}"


__all__ = ["docs_page"]
