"""The page of a sentence's attention: what is in it, that no token breaks out of it, and how it acts in a browser."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer.lab.attention_maps import AttentionMaps
from hf_vanilla_transformer.lab.attention_page import attention_page
from hf_vanilla_transformer.lab.heads import KINDS

SOURCE = (
    "</script><script>alert(1)</script>",
    "\"'",
    "·\U0001f600",
    "<unk>",
    "<!--<script>",
    "http://x.y/?a=1&b",
    "</s>",
)
READ = ("<s>", "\\u0041`${1}`", "\u2028·Straße", "{{maps}}")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def maps():
    generator = torch.Generator().manual_seed(3)
    sizes = {"encoder": (7, 7), "decoder": (4, 4), "cross": (4, 7)}
    scores = {kind: 3 * torch.randn(2, 3, *size, generator=generator) for kind, size in sizes.items()}
    scores["decoder"] = scores["decoder"].masked_fill(~torch.ones(4, 4, dtype=torch.bool).tril(), -torch.inf)
    weights = {kind: each.softmax(-1) for kind, each in scores.items()}
    return AttentionMaps("".join(SOURCE), "".join(READ), SOURCE, READ, (*READ[1:], "</s>"), weights)


@pytest.fixture(scope="module")
def page(maps):
    return attention_page(maps, "runs/<b>&")


class Reader(html.parser.HTMLParser):
    """The elements of a page, the texts of its scripts, and whether each element is closed by its own end."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.scripts, self.addresses = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def test_no_token_breaks_out_and_all_data_is_in_it(page, maps):
    reader = Reader(page)
    assert reader.open == []
    assert len(reader.scripts) == 2
    data = json.loads(reader.scripts[0])
    assert (data["model"], data["sentence"], data["translation"]) == ("runs/<b>&", maps.sentence, maps.translation)
    assert [each["name"] for each in data["kinds"]] == list(KINDS)
    for each in data["kinds"]:
        assert (tuple(each["rows"]), tuple(each["columns"])) == maps.axes(each["name"])
        torch.testing.assert_close(torch.tensor(each["weights"]), maps.weights[each["name"]], rtol=0, atol=5.1e-5)
        assert torch.equal(torch.tensor(each["allowed"]).bool(), maps.may_attend(each["name"]))


def test_nothing_is_loaded_from_anywhere(page):
    loading = r"https?://|//[a-z]|@import|url\(|\bfetch\b|XMLHttpRequest|\bimport\b"
    assert not re.search(loading, page)
    assert Reader(page).addresses == ["data:,"]
    assert "default-src 'none'" in page  # and a browser would refuse to


def test_the_template_is_part_of_the_package():
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(r"^hf_vanilla_transformer = \[(.*)\]$", project, re.MULTILINE)
    assert '"lab/*.html"' in line


def test_text_reaches_the_page_only_as_text(page):
    """No way of writing markup is in the program, so that no token can be taken for it."""
    program = Reader(page).scripts[1]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", program)


# Runs after the page's own program, and writes what a reader would see into the page.
PROBE = """
<script>
const seen = {};
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
const look = () => ({
  said: document.getElementById("said").textContent,
  rows: [...document.querySelectorAll("#rows button")].map((each) => each.textContent),
  pressed: [...document.querySelectorAll("#rows button")].map((each) => each.getAttribute("aria-pressed")),
  tabs: [...document.querySelectorAll("#rows button")].map((each) => each.tabIndex),
  heads: Object.fromEntries([...document.querySelectorAll("#heads .head")].map((line) => [line.dataset.head,
    [...line.querySelectorAll(".token")].map((token) => [Number(token.dataset.weight),
      getComputedStyle(token).backgroundColor, token.classList.contains("masked")])])),
});
const row = (index) => document.querySelectorAll("#rows button")[index];
const select = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
// A window in the background moves the focus, too, but tells nobody; whether a headless one is there is a race.
const focus = (each) => {
  each.focus();
  if (!document.hasFocus()) each.dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
};
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
seen.start = look();
row(2).dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
seen.hovered = look();
focus(row(1));
seen.focused = look();
press("End");
seen.end = look();
press("ArrowLeft");
seen.left = look();
select("kind", "1"); select("layer", "1"); focus(row(1));
seen.decoder = look();
select("head", "2");
seen.head = look();
seen.errors = errors;
const result = document.createElement("pre");
result.id = "seen";
result.textContent = encodeURIComponent(JSON.stringify(seen));
document.body.append(result);
</script>
"""


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What a headless browser shows after each step of `PROBE`."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    folder = tmp_path_factory.mktemp("page")
    path = folder / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert ":CONSOLE" not in done.stderr, done.stderr
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(re.sub(r"%([0-9A-F]{2})", lambda each: chr(int(each[1], 16)), found).encode("latin-1").decode())


@pytest.mark.slow
def test_in_a_browser_pointing_at_a_token_shows_what_each_head_attends_to(seen, maps):
    """Takes 3 seconds for chromium; skipped where there is none."""
    assert seen["errors"] == []
    assert seen["start"]["rows"] == [*maps.predicted]
    weights = maps.weights["cross"][0]
    for step, row in (("start", 0), ("hovered", 2), ("focused", 1), ("end", 3), ("left", 2)):
        found = seen[step]
        assert found["pressed"] == [str(index == row).lower() for index in range(4)]
        assert found["tabs"] == [0 if index == row else -1 for index in range(4)]
        assert list(found["heads"]) == ["mean", "head 1", "head 2", "head 3"]
        expected = {"mean": weights[:, row].mean(0), **{f"head {n + 1}": weights[n, row] for n in range(3)}}
        for head, cells in found["heads"].items():
            torch.testing.assert_close(torch.tensor([each[0] for each in cells]), expected[head], rtol=0, atol=6e-5)
            assert not any(is_masked for _, _, is_masked in cells)
            by_weight = [float(colour.rstrip(")").split(",")[3]) if "rgba" in colour else 1.0
                         for _, colour, _ in sorted(cells)]  # fmt: skip
            assert by_weight == sorted(by_weight)  # the more, the stronger the shade
        best = maps.source[int(expected["mean"].argmax())]
        assert found["said"].startswith(f"{maps.predicted[row]} (mean): {best} ")
    assert seen["start"]["heads"] != seen["hovered"]["heads"]


@pytest.mark.slow
def test_in_a_browser_kind_layer_and_head_can_be_chosen(seen, maps):
    """Takes no time after the one before, with which it shares chromium."""
    weights = maps.weights["decoder"][1][:, 1]
    cells = seen["decoder"]["heads"]["head 1"]
    torch.testing.assert_close(torch.tensor([each[0] for each in cells]), weights[0], rtol=0, atol=6e-5)
    assert [each[2] for each in cells] == [False, False, True, True]
    assert list(seen["head"]["heads"]) == ["head 3"]
    chosen = torch.tensor([each[0] for each in seen["head"]["heads"]["head 3"]])
    torch.testing.assert_close(chosen, weights[2], rtol=0, atol=6e-5)
