"""The files of the page: they name no other host, and text reaches them only as text."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import hf_vanilla_transformer

FOLDER = Path(hf_vanilla_transformer.__file__).parent / "demo" / "page"
FILES = sorted(FOLDER.iterdir())
NODE = shutil.which("node")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_loaded_from_anywhere_else(path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, which nobody asks for
    assert not re.search(r"https?:|[\"'(]//|@import|url\(|\beval\b|new Function|XMLHttpRequest|WebSocket", text)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_text_reaches_the_page_only_as_text(path):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser", path.read_text())


class Reader(html.parser.HTMLParser):
    """Ids, what refers to ids, inline code, and what is loaded."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.meant, self.inline, self.loaded = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.meant |= set(value.split()) if name in ("for", "aria-labelledby", "aria-describedby") else set()
            self.inline += [name] if name == "style" or name.startswith("on") else []
            self.loaded += [value] if name in ("src", "href") else []


def test_the_document_and_the_programs_name_what_is_there():
    reader = Reader((FOLDER / "index.html").read_text(encoding="utf-8"))
    assert len(reader.ids) == len(set(reader.ids))
    used = {name for path in FOLDER.glob("*.js") for name in re.findall(r'\bat\("([\w-]+)"\)', path.read_text())}
    assert used | reader.meant <= set(reader.ids)
    assert reader.inline == []  # the content security policy would refuse it
    for address in reader.loaded:
        assert address == "data:," or (FOLDER.parent / address).is_file()
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r'^import .* from "\./(.*)";$', path.read_text(), re.MULTILINE):
            assert (FOLDER / name).is_file()


def test_the_files_are_part_of_the_package():
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(r"^hf_vanilla_transformer = \[(.*)\]$", project, re.MULTILINE)
    assert '"demo/page/*"' in line


def run_script(script):
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(NODE is None, reason="no node")
def test_of_questions_that_come_meanwhile_only_the_last_is_asked_and_shown():
    """A second for node; skipped where there is none. One question is under way while three more come."""
    module = (FOLDER / "api.js").as_uri()
    script = f"""
    const {{ latest }} = await import({json.dumps(module)});
    const asked = [], shown = [], failed = [];
    const ask = latest(async (n) => {{ asked.push(n); await new Promise((go) => setTimeout(go, 30));
        if (n === 5) throw new Error("five"); return n; }},
        (n) => shown.push(n), (error, n) => failed.push([error.message, n]));
    for (const n of [1, 2, 3, 4]) ask(n);
    await new Promise((go) => setTimeout(go, 150));
    ask(5);
    await new Promise((go) => setTimeout(go, 100));
    ask(6);
    await new Promise((go) => setTimeout(go, 100));
    console.log(JSON.stringify([asked, shown, failed]));
    """
    assert run_script(script) == [[1, 4, 5, 6], [4, 6], [["five", 5]]]
