"""The queue of a service: who is decoded with whom, when, and what becomes of those who leave or come too late."""

import asyncio
import itertools
import random
import threading
import time

import pytest

pytest.importorskip("fastapi")
from hf_vanilla_transformer.serving.errors import Refusal
from hf_vanilla_transformer.serving.limits import Limits
from hf_vanilla_transformer.serving.metrics import Metrics
from hf_vanilla_transformer.serving.token_batcher import TokenBatcher


class Work:
    """Counts, remembers its batches, and waits when it is told to."""

    def __init__(self):
        self.batches, self.may_go, self.has_begun = [], threading.Event(), threading.Event()
        self.may_go.set()

    def __call__(self, key, payloads):
        self.batches.append((key, list(payloads)))
        self.has_begun.set()
        assert self.may_go.wait(60)
        if "bad" in payloads:
            raise ValueError("bad is not good")
        if "broken" in payloads:
            raise RuntimeError("broken")
        return [f"{key}:{payload}" for payload in payloads]


def run(conversation, **limits):
    """Runs `conversation(batcher, work)` with a started queue, closes it, and returns the batches and the metrics."""
    work, metrics = Work(), Metrics()

    async def main():
        batcher = TokenBatcher("m", work, Limits(**{"max_wait": 0, **limits}), metrics)
        batcher.start()
        try:
            await conversation(batcher, work)
        finally:
            work.may_go.set()
            await batcher.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    return work.batches, metrics


async def begun(batcher, work, key="k", payload="first"):
    """Keeps the thread busy with a first batch, so that what follows has to wait."""
    work.may_go.clear()
    first = asyncio.ensure_future(batcher.submit(key, [payload], [1]))
    while not work.has_begun.is_set():
        await asyncio.sleep(0.001)
    return first


async def waiting(batcher, *requests):
    tasks = [asyncio.ensure_future(batcher.submit(*request)) for request in requests]
    await asyncio.sleep(0.01)
    return tasks


def test_each_gets_its_own_answer_and_no_text_is_lost_or_decoded_twice():
    numbers = random.Random(0)

    async def conversation(batcher, work):
        async def client(index):
            await asyncio.sleep(numbers.random() / 50)
            texts = [f"{index}-{place}" for place in range(numbers.randint(1, 4))]
            key = f"k{index % 3}"
            assert await batcher.submit(key, texts, [len(text) for text in texts]) == [
                f"{key}:{text}" for text in texts
            ]
            return [(key, text) for text in texts]

        sent = itertools.chain(*await asyncio.gather(*map(client, range(200))))
        decoded = [(key, text) for key, payloads in work.batches for text in payloads]
        assert sorted(sent) == sorted(decoded)

    batches, metrics = run(conversation, max_batch_tokens=64, max_wait=1)
    assert len(batches) < sum(len(payloads) for _, payloads in batches)  # some were together
    assert metrics.registry.get_sample_value("vanilla_transformer_queue_texts", {"model": "m"}) == 0


def test_a_batch_has_equal_options_and_no_more_tokens_than_allowed_padding_included():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(
            batcher,
            ("x", ["a", "b", "c"], [3, 3, 5]),  # 3 * 3, but 5 * 3 > 10
            ("y", ["d"], [1]),
            ("x", ["e", "f"], [3, 100]),  # 3 * 3; the other is alone
        )
        work.may_go.set()
        await asyncio.gather(first, *tasks)

    batches, _ = run(conversation, max_batch_tokens=10)
    assert batches[1:] == [("x", ["a", "b", "e"]), ("x", ["c"]), ("y", ["d"]), ("x", ["f"])]


def test_a_batch_has_no_more_texts_than_allowed_however_short():
    async def conversation(batcher, work):
        await asyncio.gather(*(batcher.submit("k", [text], [1]) for text in "abcde"))

    assert [payloads for _, payloads in run(conversation, max_batch_texts=2, max_wait=50)[0]] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


def test_the_oldest_text_waits_no_longer_than_the_deadline_and_not_at_all_where_a_batch_is_full():
    seconds = {}

    async def conversation(batcher, work):
        for name, tokens in (("one", [1]), ("full", [4, 4])):
            started = time.perf_counter()
            await batcher.submit("k", ["x"] * len(tokens), tokens)
            seconds[name] = time.perf_counter() - started

    run(conversation, max_batch_tokens=8, max_wait=500)
    assert seconds["one"] >= 0.5
    assert seconds["full"] < 0.4


def test_texts_that_come_within_the_deadline_are_together():
    async def conversation(batcher, work):
        async def later(seconds, text):
            await asyncio.sleep(seconds)
            return await batcher.submit("k", [text], [1])

        await asyncio.gather(later(0, "a"), later(0.01, "b"))

    assert run(conversation, max_wait=2000, max_batch_tokens=2)[0] == [("k", ["a", "b"])]


def test_a_full_queue_refuses_and_says_when_to_come_again():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(batcher, ("k", ["a", "b"], [1, 1]))
        with pytest.raises(Refusal, match="2 texts wait for this model already, and at most 3 may") as caught:
            await batcher.submit("k", ["c", "d"], [1, 1])
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        tasks += await waiting(batcher, ("k", ["e"], [1]))  # this one still fits
        work.may_go.set()
        await asyncio.gather(first, *tasks)
        assert await batcher.submit("k", ["c", "d"], [1, 1]) == ["k:c", "k:d"]

    _, metrics = run(conversation, max_queue=3, max_texts=3)
    assert metrics.registry.get_sample_value("vanilla_transformer_refused_texts_total", {"model": "m"}) == 2


def test_a_client_that_leaves_takes_its_texts_along_and_makes_room():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        leaving, staying = await waiting(batcher, ("k", ["a", "b"], [1, 1]), ("k", ["c"], [1]))
        leaving.cancel()
        (late,) = await waiting(batcher, ("k", ["d", "e"], [1, 1]))
        work.may_go.set()
        assert await staying == ["k:c"]
        assert await late == ["k:d", "k:e"]
        await first
        with pytest.raises(asyncio.CancelledError):
            await leaving

    batches, metrics = run(conversation, max_queue=3, max_texts=3)
    assert batches == [("k", ["first"]), ("k", ["c", "d", "e"])]
    assert metrics.registry.get_sample_value("vanilla_transformer_dropped_texts_total", {"model": "m"}) == 2


def test_a_client_that_leaves_while_its_text_is_decoded_disturbs_nobody():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        first.cancel()
        (second,) = await waiting(batcher, ("k", ["a"], [1]))
        work.may_go.set()
        assert await second == ["k:a"]

    run(conversation)


def test_what_one_text_does_wrong_concerns_its_own_request_only():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(batcher, ("k", ["a"], [1]), ("k", ["b", "bad"], [1, 1]), ("k", ["c"], [1]))
        work.may_go.set()
        assert await tasks[0] == ["k:a"]
        with pytest.raises(ValueError, match="bad is not good"):
            await tasks[1]
        assert await tasks[2] == ["k:c"]
        await first

    run(conversation)


def test_an_error_of_the_model_reaches_all_of_its_batch_and_the_next_is_decoded():
    async def conversation(batcher, work):
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.submit("k", ["broken"], [1])
        assert await batcher.submit("k", ["a"], [1]) == ["k:a"]

    run(conversation)


def test_an_error_of_another_kind_concerns_its_own_text_only_and_is_logged(caplog):
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(batcher, ("k", ["a"], [1]), ("k", ["broken"], [1]), ("k", ["b", "c"], [1, 1]))
        work.may_go.set()
        assert await tasks[0] == ["k:a"]
        with pytest.raises(RuntimeError, match="broken"):
            await tasks[1]
        assert await tasks[2] == ["k:b", "k:c"]
        await first

    batches, _ = run(conversation)
    assert [payloads for _, payloads in batches[1:]] == [["a", "broken", "b", "c"], ["a"], ["broken"], ["b"], ["c"]]
    assert caplog.text.count("a batch of 4 texts failed") == 1


def test_a_queue_with_too_many_tokens_times_beams_refuses_however_few_the_texts():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(batcher, ("k", ["a", "b"], [10, 5], 4))
        with pytest.raises(Refusal, match="60 source tokens times beams wait for this model already, and at most 100"):
            await batcher.submit("k", ["c"], [21], 2)
        tasks += await waiting(batcher, ("j", ["d"], [20], 2))  # this one still fits
        tasks[0].cancel()
        tasks += await waiting(batcher, ("j", ["e"], [30], 2))  # and this one in the place of who leaves
        work.may_go.set()
        await first
        assert [await task for task in tasks[1:]] == [["j:d"], ["j:e"]]

    run(conversation, max_beam_tokens=100, max_queue_beam_tokens=100)


def test_closing_decodes_what_waits_and_takes_no_more():
    async def conversation(batcher, work):
        first = await begun(batcher, work)
        tasks = await waiting(batcher, ("k", ["a"], [1]), ("j", ["b"], [1]))
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await batcher.submit("k", ["c"], [1])
        assert caught.value.status == 503
        work.may_go.set()
        await closing
        assert [await first, *[await task for task in tasks]] == [["k:first"], ["k:a"], ["j:b"]]

    run(conversation, max_wait=60000, max_batch_tokens=1)


@pytest.mark.parametrize("name", ["max_characters", "max_queue", "max_streams", "max_wait", "max_batch_tokens"])
def test_limits_below_their_least_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"`{name}`=-1 is not allowed"):
        Limits(**{name: -1})


def test_a_request_that_could_never_be_accepted_is_no_limit():
    with pytest.raises(ValueError, match="`max_texts`=9 is more than `max_queue`=8"):
        Limits(max_texts=9, max_queue=8)
    with pytest.raises(ValueError, match="`max_beam_tokens`=9 is more than `max_queue_beam_tokens`=8"):
        Limits(max_beam_tokens=9, max_queue_beam_tokens=8)
