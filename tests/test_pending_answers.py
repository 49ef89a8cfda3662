"""Answers that were not fetched yet: who waits gets his, whatever others ask, and what nobody fetches is bounded."""

import json
import threading
from asyncio import Queue
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from hf_vanilla_transformer.demo import server as server_module
from hf_vanilla_transformer.demo.pending_answers import MAX_UNFETCHED, PendingAnswers, estimated_size

MEGABYTE = 2**20


def completed(numbers):
    """A message with an array of so many numbers."""
    return SimpleNamespace(output={"data": [{"cross": [[[0.0] * 8] * 4] * (numbers // 32)}]})


class Calls:
    """What Gradio's queue does about a call, in its order."""

    def __init__(self, max_bytes=MAX_UNFETCHED):
        self.pending_event_ids_session, self.event_ids_to_events = {}, {}
        self.answers = PendingAnswers(self, max_bytes)

    def ask(self, session):
        if session not in self.answers:
            self.answers[session] = Queue()
        self.pending_event_ids_session.setdefault(session, set()).add(f"id {session}")
        self.event_ids_to_events[f"id {session}"] = session
        self.answers[session].put_nowait(SimpleNamespace(rank=0))

    def finish(self, session, message=None):
        self.answers[session].put_nowait(message or completed(32))
        del self.event_ids_to_events[f"id {session}"]

    def fetch(self, session):
        while not (messages := self.answers[session]).empty():
            messages.get_nowait()
        self.pending_event_ids_session[session].remove(f"id {session}")


def test_who_waits_is_never_forgotten_and_what_was_fetched_is_at_once():
    calls = Calls()
    for waiting in range(20):
        calls.ask(f"waiting {waiting}")
    for number in range(500):
        calls.ask(f"other {number}")
        calls.finish(f"other {number}")
        calls.fetch(f"other {number}")
    assert list(calls.answers) == [*(f"waiting {number}" for number in range(20)), "other 499"]
    assert set(calls.pending_event_ids_session) == set(calls.answers)
    for waiting in range(20):
        calls.finish(f"waiting {waiting}")
        calls.fetch(f"waiting {waiting}")
    calls.ask("last")
    assert list(calls.answers) == list(calls.pending_event_ids_session) == ["last"]


def test_sessions_that_nobody_fetches_are_bounded_however_little_was_answered():
    calls = Calls(max_bytes=MEGABYTE)
    for number in range(100):
        calls.ask(str(number))
        calls.finish(str(number), {"error": "there is no text yet; type some"})
    assert 8 <= len(calls.answers) <= 17  # of 64 KiB each
    assert set(calls.pending_event_ids_session) == set(calls.answers)


def test_of_answers_that_nobody_fetches_the_newest_stay_up_to_so_many_bytes():
    calls = Calls(max_bytes=11 * MEGABYTE)
    assert estimated_size(completed(65_536)) == 2 * MEGABYTE
    for number in range(30):
        calls.ask(f"{number}")
        calls.finish(f"{number}", completed(65_536))
        kept = sum(estimated_size(each) for messages in calls.answers.values() for each in messages._queue)
        assert kept <= 13 * MEGABYTE  # the last one is counted when the next one comes
    assert list(calls.answers) == [str(number) for number in range(24, 30)]
    assert set(calls.pending_event_ids_session) == set(calls.answers)
    calls.ask("small")
    assert calls.answers["29"].qsize() == 2  # the place in the queue, and the answer


def test_answers_are_bounded_when_all_have_asked_before_the_first_is_answered():
    calls = Calls(max_bytes=11 * MEGABYTE)
    for number in range(30):
        calls.ask(f"{number}")
    for number in range(30):
        calls.finish(f"{number}", completed(65_536))
        kept = sum(estimated_size(each) for messages in calls.answers.values() for each in messages._queue)
        assert kept <= 13 * MEGABYTE
    assert len(calls.answers) >= 5


def test_one_answer_stays_however_large_it_is():
    calls = Calls(max_bytes=1)
    for session in ("a", "b", "c"):
        calls.ask(session)
        calls.finish(session, completed(65_536))
    assert list(calls.answers) == ["b", "c"]


def test_an_answer_that_is_being_sent_is_left_alone_and_calls_of_readers_that_left_are_not_kept():
    calls = Calls(max_bytes=1)
    for session in ("sent", "left"):
        calls.ask(session)
        calls.finish(session)
        while not calls.answers[session].empty():
            calls.answers[session].get_nowait()
    del calls.answers["left"]  # as Gradio does when the reader is gone
    calls.ask("next")
    assert set(calls.pending_event_ids_session) == set(calls.answers) == {"sent", "next"}


class StandIn:
    """A model of the page whose searches wait, and whose attention is large."""

    def __init__(self):
        self.may_answer = threading.Event()

    def describe(self):
        return {"name": "m"}

    def search(self, text, tag, num_beams, length_penalty, prefix_ids):
        assert self.may_answer.wait(300)
        return {"text": text}

    def attention(self, text, tag, target_ids):
        return {"cross": [[[[0.5] * 50] * 50] * 8] * 6}

    def positions(self, length):
        return {"positions": length}


def asking(address):
    """Functions that begin a call of the model m, and fetch its result."""
    opener = build_opener(ProxyHandler({}))

    def begin(name, *data):
        body = json.dumps({"data": ["m", *data]}).encode()
        request = Request(f"{address}gradio_api/call/{name}", body, {"Content-Type": "application/json"})
        return json.load(opener.open(request, timeout=300))["event_id"]

    def fetch(name, event):
        lines = opener.open(f"{address}gradio_api/call/{name}/{event}", timeout=300).read().decode().splitlines()
        assert "event: complete" in lines, lines
        return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]

    return begin, fetch


@pytest.mark.slow
def test_who_asks_as_soon_as_the_real_server_listens_is_answered(monkeypatch):
    """Five seconds on a quiet machine: a call comes in while Gradio is still busy with its launch."""
    http_server = pytest.importorskip("gradio.http_server")
    start_server, events = http_server.start_server, []

    def start_and_ask(**options):
        started = start_server(**options)
        events.append(asking(started[2])[0]("positions", 7))
        return started

    monkeypatch.setattr(http_server, "start_server", start_and_ask)
    server = server_module.make_server({"m": StandIn()})
    address = server_module.serve(server, "127.0.0.1", 0, block=False)
    try:
        assert asking(address)[1]("positions", events[0]) == {"positions": 7}
    finally:
        server.get_blocks().close()


@pytest.mark.slow
def test_all_who_wait_for_the_real_server_are_answered_whatever_others_ask_meanwhile(monkeypatch):
    """Ten seconds on a quiet machine: 15 readers wait, 100 are answered meanwhile, and 12 leave without an answer."""
    pytest.importorskip("gradio")
    largest = 4 * estimated_size(SimpleNamespace(output=StandIn().attention("", "", [])))
    monkeypatch.setattr(server_module, "PendingAnswers", lambda queue: PendingAnswers(queue, largest))
    model = StandIn()
    server = server_module.make_server({"m": model})
    begin, fetch = asking(server_module.serve(server, "127.0.0.1", 0, block=False))
    try:
        with ThreadPoolExecutor(15) as pool:
            waiting = [begin("search", str(number), "", None, None, []) for number in range(15)]
            found = [pool.submit(fetch, "search", event) for event in waiting]
            for length in range(1, 101):
                assert fetch("positions", begin("positions", length)) == {"positions": length}
            for _ in range(12):
                begin("attention", "a", "", [5])
            assert not any(each.done() for each in found)
            model.may_answer.set()
            assert [each.result(300) for each in found] == [{"text": str(number)} for number in range(15)]
            answers = server.get_blocks()._queue.pending_messages_per_session
            while server.get_blocks()._queue.event_ids_to_events:  # what those who left had asked for
                assert fetch("positions", begin("positions", 1)) == {"positions": 1}
            assert fetch("positions", begin("positions", 1)) == {"positions": 1}
            assert (
                sum(map(estimated_size, [each for messages in answers.values() for each in messages._queue])) <= largest
            )
            assert len(answers) <= 6
    finally:
        model.may_answer.set()
        server.get_blocks().close()
