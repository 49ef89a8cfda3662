"""The page in a headless Chromium: typing, the tree, heads, the keyboard alone, a phone, dark, and no other host.

The models are the shipped checkpoints. All tests share one server and one browser; each has a page of its own.
"""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from child_processes import start

from hf_vanilla_transformer.demo.server import DEFAULT_MODELS
from hf_vanilla_transformer.inference.shipped import shipped_checkpoints

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT = 120_000  # milliseconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
    pytest.mark.skipif(not set(DEFAULT_MODELS) <= set(shipped_checkpoints()), reason="no shipped checkpoints"),
]

# Runs the verb, and writes every address that the process connects to or asks the name of.
SERVER = """
import sys
log = open(sys.argv[1], "w", buffering=1)
def hook(event, arguments):
    if event == "socket.getaddrinfo":
        print(arguments[0], file=log)
    elif event == "socket.connect":
        print(arguments[1][0] if isinstance(arguments[1], tuple) else "local", file=log)
sys.addaudithook(hook)
from hf_vanilla_transformer.commands.demo import main
sys.exit(main(["--port", "0", "--device", "cpu"]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the page, and the file of the addresses that the server has connected to."""
    log = tmp_path_factory.mktemp("server") / "addresses"
    with start([sys.executable, "-c", SERVER, log], seconds=7200, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while not (match := re.search(r"the page is at (http://127\.0\.0\.1:\d+/)$", said.strip())):
            said = process.stderr.readline()
            assert said, "the server ended"
        yield match[1], log
        process.terminate()
        assert process.wait(300) == 0


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page; in the end nothing has failed in it, and nobody else was asked for anything."""
    address, contexts, errors, asked = server[0], [], [], []

    def go(query="", before=None, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)  # of its pages, and of their requests
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        if before:
            before(page)
        page.goto(address + query)
        page.wait_for_selector("#flow [data-side=rows]")
        page.wait_for_selector("#position-labels div")
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []
    assert asked
    assert all(each.startswith((address, "data:")) for each in asked), asked


def wait_for(page, condition, argument=None):
    page.wait_for_function(condition, arg=argument, timeout=TIMEOUT)


def result(page):
    return page.locator("#result").text_content()


def type_text(page, text):
    """Types, and waits for the answer to it; the text before has another length."""
    page.fill("#source", text)
    wait_for_answer(page, text)


def wait_for_answer(page, text):
    """Waits until the answer to this text is shown, and not that to a part of it."""
    condition = """text => document.querySelector("#status").textContent.includes("finished")
        && !document.querySelector("#tree-box").hasAttribute("aria-busy")
        && document.querySelector("#count").textContent.startsWith([...text].length + " ")"""
    wait_for(page, condition, text)


def wait_for_attention(page):
    """Waits until the attention is that of the result: it is asked for by itself, and that of the one before stays."""
    condition = "text => document.querySelector('#attention-of b').textContent === text"
    wait_for(page, condition, result(page) or "(nothing)")


def focused(page, attribute):
    return page.evaluate("name => document.activeElement.getAttribute(name)", attribute)


def tab_to(page, selector):
    """Presses Tab until the focus is in something."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => Boolean(document.activeElement.closest(selector))", selector):
            return
    raise AssertionError(f"Tab does not come to {selector}")


def test_typing_translates_and_draws_the_search(visit, tmp_path):
    """A minute on a quiet machine, the start of the server and of chromium included."""
    page = visit()
    type_text(page, "Ein Hund rennt durch den Schnee.")
    assert result(page) == "A dog runs through the snow."
    for state in ("open", "pruned", "finished"):
        assert page.locator(f"#tree [data-state={state}]").count() > 0
    # The states differ in more than colour: marks, and dashes.
    pruned, finished = (page.locator(f"#tree [data-state={state}]").first for state in ("pruned", "finished"))
    assert pruned.locator("text").first.text_content().endswith(" ×")
    assert finished.locator("text").first.text_content().endswith(" ✓")
    assert pruned.locator(".shape").evaluate("each => getComputedStyle(each).strokeDasharray") != "none"
    shown = page.locator("#ranks .hypothesis .words").all_text_contents()
    assert shown[0] == result(page)
    assert len(shown) == page.locator("#tree [data-state=finished]").count()
    page.uncheck("#with-pruned")
    assert page.locator("#tree [data-state=pruned]").count() == 0
    page.check("#with-pruned")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_the_tree_has_no_crossing_edges_and_its_first_row_is_the_best_hypothesis(visit):
    """Seconds after the first test."""
    page = visit()
    places = page.evaluate(
        "[...document.querySelectorAll('#tree [data-node]')].map(each => { const m = each.transform.baseVal[0].matrix;"
        " return [Number(each.dataset.node), m.e, m.f, each.classList.contains('best')]; })"
    )
    assert len({y for _, _, y, is_best in places if is_best}) == 1
    assert min(y for _, _, y, _ in places) == next(y for _, _, y, is_best in places if is_best)
    ends = page.evaluate(
        "[...document.querySelectorAll('#tree [data-edge]')].map(each => each.getAttribute('d').match(/[\\d.]+/g)"
        ".map(Number)).map(p => [p[0], p[1], p.at(-2), p.at(-1)])"
    )
    for x1, y1, x2, y2 in ends:
        for a1, b1, a2, b2 in ends:
            if x2 == a2 and y1 < b1:
                assert y2 < b2, "edges into one column keep the order of their origins"
            assert x1 < x2
            assert a1 < a2


def test_clicking_a_node_and_an_alternative_continues_from_there(visit):
    """Seconds after the first test."""
    page = visit()
    type_text(page, "Ein Hund rennt durch den Schnee.")
    page.locator("#tree [data-node]").first.click()
    assert page.locator("#tree [aria-selected=true]").get_attribute("aria-label") == "start"
    bars = page.locator("#next .bar .number").all_text_contents()
    shares = [float(re.search(r"[\d.]+", each)[0]) for each in bars]
    assert shares == sorted(shares, reverse=True)
    other = page.locator("#next .bar:enabled").nth(1)
    token = other.locator(".words").text_content()
    other.click()
    page.wait_for_selector("#begins:not([hidden])")
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length === 2")
    assert result(page).startswith(token)
    assert page.locator("#prefix").text_content() == token
    texts = page.locator("#ranks .hypothesis .words").all_text_contents()
    assert all(text.startswith(token) for text in texts)
    page.click("#free")
    wait_for(page, "() => document.querySelector('#result').textContent === 'A dog runs through the snow.'")
    assert page.locator("#begins").is_hidden()


def test_a_pruned_hypothesis_can_be_continued(visit):
    """Seconds after the first test."""
    page = visit()
    node = page.locator("#tree [data-state=pruned]").first
    token = node.locator("text").first.text_content().removesuffix(" ×")
    node.click()
    page.get_by_role("button", name="Continue the search from here").click()
    page.wait_for_selector("#begins:not([hidden])")
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length > 1")
    assert token.replace("·", "") in page.locator("#prefix").text_content()


def test_beams_and_penalty_change_the_search_and_the_ranks(visit):
    """Seconds after the first test."""
    page = visit()
    page.fill("#beams", "6")
    wait_for(page, "() => document.querySelector('#status').textContent.startsWith('6 beams')")
    assert page.locator("#ranks .hypothesis").count() > 4
    page.fill("#alpha", "0")
    wait_for(page, "() => document.querySelector('#status').textContent.includes('α = 0:')")
    rows = page.locator("#ranks .sum").all_text_contents()
    assert all("same rank without the penalty" in row for row in rows)
    numbers = [re.findall(r"−?[\d.]+", row.replace("log P", "")) for row in rows]
    assert all(score == log_prob for score, log_prob, *_ in numbers)
    page.fill("#alpha", "3")
    wait_for(page, "() => document.querySelector('#status').textContent.includes('α = 3:')")
    page.click("#own")
    wait_for(page, "() => document.querySelector('#status').textContent.startsWith('4 beams, α = 1.4')")
    assert page.locator("#own").is_disabled()


def test_words_are_pronounced_in_the_chosen_language(visit):
    """Seconds after the first test."""
    page = visit()
    page.select_option("#model", index=1)
    wait_for(page, "() => document.querySelectorAll('#tag option').length === 15")
    assert page.locator("#tag option").all_text_contents().count("French") == 1
    page.select_option("#tag", "<fre>")
    wait_for(page, "() => document.querySelector('#result').textContent === 'b ɔ̃ ʒ u ʁ'")
    assert page.input_value("#source") == "bonjour"
    wait_for(page, "() => document.querySelector('#flow [data-side=columns] text')?.textContent === '<fre>'")


def test_pointing_at_a_head_or_a_token_shows_its_attention(visit):
    """Seconds after the first test."""
    page = visit()
    before = page.locator("#flow .ribbons path").evaluate_all("each => each.map(p => p.getAttribute('d'))")
    title = page.locator("#flow-title").text_content()
    assert page.locator("#heads [data-head]").count() == 4 * 5
    page.hover("#heads [data-layer='0'][data-head='2']")
    assert page.locator("#flow-title").text_content() == "Layer 1, head 3"
    assert page.locator("#flow .ribbons path").evaluate_all("each => each.map(p => p.getAttribute('d'))") != before
    page.hover("h1")
    assert page.locator("#flow-title").text_content() == title
    page.click("#heads [data-layer='1'][data-head='0']")
    page.hover("h1")
    assert page.locator("#flow-title").text_content() == "Layer 2, head 1"
    page.hover("#flow [data-side=rows][data-index='1']")
    said = page.locator("#flow-said").text_content()
    assert said.startswith("·young attends to ")
    shares = [float(each) for each in re.findall(r"([\d.]+) %", said)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 101
    assert page.locator("#flow .ribbons .lit").count() > 0
    page.select_option("#kind", "decoder")
    assert "decoder" in page.locator("#kind option:checked").text_content()
    assert page.locator("#flow [data-side=columns] text").first.text_content() == "<s>"


def test_everything_works_with_the_keyboard_alone(visit):
    """Seconds after the first test; attention comes late, as it may."""
    late = """const ask = window.fetch;
        window.fetch = async (address, ...rest) => {
            if (String(address).endsWith("/attention")) await new Promise((resolve) => setTimeout(resolve, 1000));
            return ask(address, ...rest);
        };"""
    page = visit(before=lambda page: page.add_init_script(late))
    tab_to(page, "#source")
    page.keyboard.press("Control+A")
    text = "Ein Hund rennt durch den Schnee."
    page.keyboard.type(text)
    wait_for_answer(page, text)
    assert result(page) == "A dog runs through the snow."
    tab_to(page, "#tree")
    assert focused(page, "role") == "treeitem"
    page.keyboard.press("Home")
    assert focused(page, "aria-label") == "start"
    page.keyboard.press("ArrowRight")
    assert focused(page, "aria-label").startswith("A, token 1")
    page.keyboard.press("ArrowDown")
    assert not focused(page, "aria-label").startswith("A, token 1")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.classList.contains('bar')")
    page.keyboard.press("Escape")
    assert focused(page, "role") == "treeitem"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    token = page.evaluate("document.activeElement.querySelector('.words').textContent")
    page.keyboard.press("Enter")
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length === 2")
    assert result(page).startswith(token)
    assert focused(page, "role") == "treeitem"
    wait_for_attention(page)
    tab_to(page, "#heads")
    before = page.locator("#flow-title").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#flow-title").text_content() != before
    page.keyboard.press("Enter")
    assert page.locator("#heads [aria-checked=true]").get_attribute("data-head") == "0"
    tab_to(page, "#flow")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert focused(page, "data-side") == "rows"
    assert page.locator("#flow-said").text_content() == focused(page, "aria-label")
    before, size = focused(page, "aria-label"), page.viewport_size
    page.set_viewport_size({**size, "width": size["width"] - 40})  # which draws the picture anew, as an answer does
    page.wait_for_timeout(500)
    assert page.locator("#flow-said").text_content() == focused(page, "aria-label") == before
    tab_to(page, "#positions")
    page.keyboard.press("ArrowRight")
    assert page.locator("#position-said").text_content().endswith("dimension 1: 1.000")  # cos(0)


def test_all_that_can_be_focused_has_a_name_and_shows_its_focus(visit):
    """Seconds after the first test."""
    page = visit()
    page.locator("#source").focus()
    stops = [page.keyboard.press("Tab") or page.evaluate("document.activeElement.tagName") for _ in range(30)]
    assert set(stops) <= {"BUTTON", "INPUT", "SELECT", "TEXTAREA", "CANVAS", "g", "BODY", "A"}, stops
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea, [tabindex]')].filter(each =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.length)).length"
    )
    assert nameless == 0
    page.locator("#tree [tabindex='0']").focus()
    page.keyboard.press("Home")
    width = "getComputedStyle(document.activeElement.querySelector('.shape')).strokeWidth"
    assert page.evaluate(width) == "4px"


@pytest.mark.parametrize("width", [360, 320])
def test_on_a_phone_only_the_tree_scrolls_sideways(visit, width):
    """Seconds after the first test."""
    page = visit(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True)
    for text in ("Ein kleines Mädchen in einem rosa Kleid steigt eine Holztreppe hinauf.", "Donaudampfschiff" * 8):
        type_text(page, text)
        page.locator("#next .bar:enabled").first.click()
        page.wait_for_selector("#begins:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('#tree-box'))")
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, textarea')].filter(each => each.offsetHeight"
        " && each.offsetHeight < 24).length"
    )
    assert small == 0


@pytest.mark.parametrize(
    ("query", "scheme", "is_dark"),
    [("", "light", False), ("", "dark", True), ("?__theme=dark", "light", True), ("?__theme=light", "dark", False)],
)
def test_it_is_dark_where_the_system_is_or_the_address_says_so(visit, query, scheme, is_dark):
    """Seconds after the first test."""
    page = visit(query, color_scheme=scheme)
    style = "name => getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).map(Number)"
    ground, text = sum(page.evaluate(style, "backgroundColor")), sum(page.evaluate(style, "color"))
    assert (ground < 150) is is_dark
    assert abs(ground - text) > 450
    # What is painted has the page's colours, too.
    least = page.evaluate(
        "(canvas => Math.min(...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
        ".filter((_, i) => i % 4 === 0)))(document.querySelector('.thumb canvas'))"
    )
    assert (least < 60) is is_dark


def test_text_is_never_taken_for_markup(visit):
    """Seconds after the first test."""
    page = visit()
    type_text(page, "Ein <img src=x onerror=window.hit=1> Hund")
    assert page.locator("img").count() == 0
    wait_for_attention(page)
    tokens = page.locator("#flow [data-side=columns] text").all_text_contents()
    assert any("<" in token and token != "</s>" for token in tokens)  # of the text, and none of its own
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None


def test_tokens_of_a_model_are_never_taken_for_markup(visit):
    """Seconds after the first test: the server's answer is replaced by one whose tokens are markup."""
    evil = "<img src=x onerror=window.hit=1>"

    def poison(route):
        text = route.fetch().text()
        if route.request.method == "GET":
            text = text.replace("·young", evil).replace("\\u00b7young", evil)
        route.fulfill(body=text, content_type="text/event-stream")

    page = visit(before=lambda page: page.route("**/gradio_api/call/*/*", poison))
    assert evil in page.locator("#tree [role=treeitem]").evaluate_all("all => all.map(e => e.ariaLabel).join()")
    page.locator("#tree [role=treeitem]").filter(has_text="<img").first.click()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None


def test_what_cannot_be_answered_is_a_sentence_on_the_page(visit):
    """Seconds after the first test."""
    page = visit()
    page.fill("#source", "x y " * 60)
    page.wait_for_selector("#error:not([hidden])")
    message = page.locator("#error").text_content()
    assert re.fullmatch(r"The text has \d+ tokens, and the page takes at most 80; shorten it\.", message)
    page.fill("#source", "x" * 401)  # nothing cuts it
    wait_for(page, "() => document.querySelector('#error').textContent.startsWith('The text has 401 characters')")
    type_text(page, "Ein Hund rennt.")
    assert page.locator("#error").is_hidden()
    page.fill("#source", " ")
    wait_for(page, "() => document.querySelector('#status').textContent === 'Type a text to translate.'")
    assert result(page) == ""


@contextmanager
def held_searches(page):
    """Keeps searches from the server within the block."""
    held, released, place = [], [], "**/gradio_api/call/search"  # nor is one kept that comes at the block's very end
    page.route(place, lambda route: route.continue_() if released else held.append(route))
    yield
    released.append(True)
    for route in held:
        route.continue_()
    page.unroute(place)


SHOWN = "#tree [data-node], #next button, #ranks button, #heads button, #flow [data-side], #position-labels div"


def test_nothing_of_a_model_can_be_chosen_under_another_one(visit):
    """Seconds after the first test: the first search of the other model is held back."""
    page = visit()
    assert page.locator(SHOWN).count() > 20
    page.locator("#tree [data-state=finished]:not(.best)").first.click()  # whose attention is asked for in a moment
    with held_searches(page):
        page.select_option("#model", index=1)
        assert page.locator(SHOWN).count() == 0
        page.wait_for_timeout(500)
        assert page.locator(SHOWN).count() == 0
        assert result(page) == ""
    page.wait_for_selector("#flow [data-side=rows]")
    tag, text = page.input_value("#tag"), page.input_value("#source")
    tags = page.locator("#tag option").evaluate_all("all => all.map(each => each.value)")
    other = next(each for each in tags if each != tag)
    with held_searches(page):
        page.select_option("#tag", other)
        page.locator("#next .bar:enabled").first.click()
        assert (page.input_value("#tag"), page.input_value("#source")) == (tag, text)
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length > 1")
    assert page.input_value("#tag") == tag


def test_when_pruned_ones_are_hidden_the_panels_follow_to_what_is_chosen_then(visit):
    """Seconds after the first test."""
    page = visit()
    page.locator("#tree [data-state=pruned]").first.click()
    assert page.get_by_role("button", name="Continue the search from here").count() == 1
    page.uncheck("#with-pruned")
    assert page.locator("#tree [aria-selected=true]").get_attribute("data-state") == "finished"
    assert page.locator("#next-title").text_content() == "The end"
    pressed = page.locator("#ranks .hypothesis").evaluate_all("all => all.map(each => each.ariaPressed)")
    assert pressed == ["true"] + ["false"] * (len(pressed) - 1)


def test_a_failure_of_attention_is_said_there_alone_and_asked_for_again(visit):
    """Seconds after the first test."""
    page, place = visit(), "**/gradio_api/call/attention/*"
    answer = 'event: complete\ndata: [{"error": "not today"}]\n\n'
    page.route(place, lambda route: route.fulfill(body=answer, content_type="text/event-stream"))
    page.locator("#tree [data-state=finished]:not(.best)").first.click()
    wait_for(page, "() => document.querySelector('#attention-of').textContent === 'Not today.'")
    assert page.locator("#flow [data-side], #heads button").count() == 0
    assert page.locator("#error").is_hidden()
    assert "finished" in page.locator("#status").text_content()
    event = "new PointerEvent('pointermove', {clientX: 9, clientY: 9})"
    page.locator("#heat").evaluate(f"each => each.dispatchEvent({event})")  # over nothing
    page.unroute(place)
    page.locator("#tree [data-state=finished]:not(.best)").first.click()
    page.wait_for_selector("#flow [data-side=rows]")


def test_the_focus_stays_where_a_new_search_is_drawn(visit):
    """Seconds after the first test."""
    page = visit()
    for text, place in (("Ein Hund rennt.", "#tree [tabindex='0']"), ("Eine Frau liest.", "#next .bar:enabled")):
        with held_searches(page):
            page.fill("#source", text)
            page.wait_for_selector("#tree-box[aria-busy]")
            page.locator(place).first.focus()
        wait_for(page, "() => !document.querySelector('#tree-box').hasAttribute('aria-busy')")
        assert page.evaluate("Boolean(document.activeElement.closest('#tree, #next'))")


def test_a_late_answer_takes_neither_the_focus_nor_what_is_read(visit):
    """Seconds after the first test: the reader has gone on from the tree, reads a number, or looks at a token."""
    page = visit()
    with held_searches(page):
        page.locator("#next .bar:enabled").first.click()
        page.locator("#beams").focus()
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length > 1")
    assert page.evaluate("document.activeElement.id") == "beams"
    rows = page.locator("#position-labels div").count()
    with held_searches(page):
        page.fill("#source", "Ein Hund rennt.")
        page.locator("#positions").focus()
        page.keyboard.press("ArrowRight")
    wait_for(page, "rows => document.querySelectorAll('#position-labels div').length !== rows", rows)
    assert page.locator("#position-said").text_content().endswith("dimension 1: 1.000")
    wait_for_attention(page)
    page.evaluate(
        "() => { const [node] = document.querySelectorAll('#tree .best[data-node]');"
        " node.dispatchEvent(new MouseEvent('click', { bubbles: true }));"
        " document.querySelector('#flow [data-side=rows]').focus(); }"
    )
    page.wait_for_timeout(500)  # its row is marked after 120 ms
    assert page.locator("#flow-said").text_content() == focused(page, "aria-label")


def test_a_search_that_waits_for_more_typing_gives_way_to_one_from_a_token(visit):
    """Seconds after the first test."""
    page, asked = visit(), []
    text = page.input_value("#source")
    page.on("request", lambda request: asked.append(request) if request.url.endswith("call/search") else None)
    page.evaluate(
        "() => { const source = document.querySelector('#source'); source.value = 'Ein'; source.dispatchEvent(new"
        " Event('input')); document.querySelector('#next .bar:not(:disabled)').click(); }"
    )
    page.wait_for_timeout(1000)
    wait_for(page, "() => document.querySelectorAll('#tree [data-state=forced]').length > 1")
    assert page.input_value("#source") == text
    assert focused(page, "role") == "treeitem"
    assert len(asked) == 1


def test_nothing_is_said_of_a_search_whose_text_was_taken_away(visit):
    """Seconds after the first test."""
    page = visit()
    with held_searches(page):
        page.fill("#source", "x y " * 60)  # too many tokens
        page.wait_for_selector("#tree-box[aria-busy]")
        page.fill("#source", "")
        wait_for(page, "() => document.querySelector('#status').textContent === 'Type a text to translate.'")
        assert page.locator("#tree-box[aria-busy]").count() == 0
    page.wait_for_timeout(1000)
    assert page.locator("#error").is_hidden()


@pytest.mark.parametrize(("own", "said"), [(None, "none"), (5.0, "5"), (0.65, "0.65")])
def test_the_models_own_penalty_is_said_as_it_is(visit, own, said):
    """Seconds after the first test: the list of models is replaced."""

    def replace(route):
        told = route.fetch().json()
        told["models"][0]["length_penalty"] = own
        route.fulfill(json=told)

    page = visit(before=lambda page: page.route("**/page/models.json", replace))
    assert page.locator("#alpha-said").text_content() == said
    page.fill("#alpha", "2")
    assert page.locator("#alpha-said").text_content() == "2.0"


def test_the_server_answers_programs_and_connects_to_no_other_host(server, visit):
    """Seconds after the first test; it looks at what all tests before it have made the server do."""
    address, log = server
    page = visit()
    response = page.request.get(address)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert page.request.get(address + "page/..%2f..%2f__init__.py").status == 404
    assert page.request.get(address + "page/nothing.js").status == 404
    for path in ("docs", "redoc", "openapi.json"):
        assert "cdn" not in page.request.get(address + path).text()
    from gradio_client import Client

    client = Client(address, verbose=False, httpx_kwargs={"timeout": TIMEOUT / 1000})
    found = client.predict("g2p-15-languages", "bonjour", "<fre>", api_name="/search")
    assert found["hypotheses"][0]["text"] == "b ɔ̃ ʒ u ʁ"
    assert json.dumps(client.predict("no such", "a", api_name="/search")).startswith('{"error": "there is no model')
    hosts = set(log.read_text().split())
    assert hosts <= {"127.0.0.1", "localhost", "local", "None"}, hosts


def test_more_questions_than_may_wait_are_refused(server, visit):
    """Half a minute after the first test: one question after the other is answered, though nobody fetches most."""
    page, place = visit(), server[0] + "gradio_api/call/search"
    data = {"data": ["multi30k-de-en-tiny", "Ein kleines Mädchen in einem rosa Kleid. " * 3, "", 8, 0.0, []]}
    asked = [page.request.post(place, data=data).status for _ in range(100)]
    assert set(asked) == {200, 503}
    assert asked.count(200) >= 32
    while not (last := page.request.post(place, data=data)).ok:
        page.wait_for_timeout(200)
    answer = page.request.get(f"{place}/{last.json()['event_id']}", timeout=0)  # the server's own limit ends it
    assert "event: complete\n" in answer.text()
