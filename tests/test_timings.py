"""Where the time goes: what is counted, added up, and said of it."""

from __future__ import annotations

import json
import threading

import pytest

from napari_wsi_heatmap.timings import (
    SHORTEST_S,
    Timings,
    bottleneck,
    shares,
    shares_line,
    spent_before,
)


def spent(active=100.0, **seconds):
    return {"active": active, **seconds}


def test_everything_is_counted_from_the_beginning():
    record = Timings().record
    assert set(record["seconds"]) == {
        "active", "reading", "waiting_for_reading", "copying", "model", "writing",
        "waiting_for_writing",
    }  # fmt: skip
    assert record["bytes"] == {"read": 0, "copied": 0, "written": 0}
    assert set(record["seconds"].values()) == {0}
    assert record["shares"] == record["bottleneck"] == ""


def test_seconds_and_bytes_add_up_and_are_plain_values():
    timings = Timings()
    timings.add("reading", 0.25, nbytes=100)
    timings.add("reading", 0.5004, nbytes=23)
    timings.add("copying", nbytes=7)
    record = json.loads(json.dumps(timings.record))
    assert record["seconds"]["reading"] == 0.75
    assert record["bytes"] == {"read": 123, "copied": 7, "written": 0}


def test_a_block_is_timed(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr("napari_wsi_heatmap.timings.time.perf_counter", lambda: next(clock))
    timings = Timings()
    with timings.spent("writing", nbytes=5):
        pass
    assert timings.record["seconds"]["writing"] == 2.5
    assert timings.record["bytes"]["written"] == 5


def test_what_is_waited_for_is_timed_and_not_what_is_done_with_it(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("napari_wsi_heatmap.timings.time.perf_counter", lambda: clock[0])

    def slowly():
        for item in "abc":
            clock[0] += 2
            yield item
        clock[0] += 1

    timings = Timings()
    got = []
    for item in timings.each("waiting", slowly()):
        got.append(item)
        clock[0] += 100
    assert got == ["a", "b", "c"]
    assert timings.seconds["waiting_for_reading"] == 7


def test_what_failed_took_time_but_brought_no_bytes(monkeypatch):
    clock = iter([1.0, 2.0])
    monkeypatch.setattr("napari_wsi_heatmap.timings.time.perf_counter", lambda: next(clock))
    timings = Timings()
    with pytest.raises(ZeroDivisionError), timings.spent("reading", nbytes=5):
        raise ZeroDivisionError
    assert timings.record["seconds"]["reading"] == 1
    assert timings.record["bytes"]["read"] == 0


@pytest.mark.parametrize("add", [{"what": "thinking"}, {"what": "model", "nbytes": 1}])
def test_what_nobody_counts_is_an_error(add):
    with pytest.raises(KeyError):
        Timings().add(**add)


def test_threads_lose_nothing():
    timings = Timings()

    def work():
        for _ in range(2000):
            timings.add("reading", 1, nbytes=3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timings.record["seconds"]["reading"] == 8000
    assert timings.record["bytes"]["read"] == 24000


def test_sessions_add_up_and_keep_what_they_do_not_know():
    earlier = spent_before(
        {"seconds": {"active": 10.0, "model": 4, "dreaming": 1.5}, "bytes": {"read": 100}}
    )
    timings = Timings()
    timings.add("active", 2.0)
    timings.add("reading", 1.0, nbytes=11)
    for _ in range(2):  # looking at it adds nothing
        record = timings.added_to(earlier)
    assert record["seconds"]["active"] == 12
    assert record["seconds"]["model"] == 4
    assert record["seconds"]["dreaming"] == 1.5
    assert record["bytes"] == {"read": 111, "copied": 0, "written": 0}
    assert timings.seconds["active"] == 2  # of this session


def test_a_record_from_before_bytes_were_counted_is_continued():
    earlier = spent_before({"seconds": {"active": 1.0, "waiting_for_reading": 0.5}})
    assert Timings().added_to(earlier)["seconds"]["waiting_for_reading"] == 0.5


@pytest.mark.parametrize(
    "record",
    [{}, {"seconds": 3}, {"seconds": {"active": "long"}}, {"seconds": {}, "bytes": [1]},
     {"seconds": {"active": None}}],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(record):
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError)):
        spent_before(record)


def test_shares_are_of_the_active_time():
    seconds = spent(waiting_for_reading=25, model=60, copying=10, waiting_for_writing=5)
    assert shares(seconds) == {"waiting": 0.25, "copying": 0.1, "model": 0.6, "saving": 0.05}
    assert shares({}) == shares({"active": 0.0, "model": 1.0}) == {}


def test_what_goes_on_behind_the_model_has_no_share():
    hidden = spent(model=90, waiting_for_reading=60, copying=20)
    assert shares(hidden) == pytest.approx(
        {"waiting": 0.075, "copying": 0.025, "model": 0.9, "saving": 0}
    )
    assert shares(spent(model=130, copying=300))["copying"] == 0


def test_several_models_at_once_share_more_time():
    seconds = spent(model=120, waiting_for_reading=60)
    assert shares(seconds)["model"] == 1
    assert shares(seconds, at_once=2) == pytest.approx(
        {"waiting": 0.3, "copying": 0, "model": 0.6, "saving": 0}
    )


def test_shares_in_a_few_words():
    assert shares_line(spent(waiting_for_reading=12, model=80)) == "reading 12 % · model 80 %"
    assert shares_line(spent(copying=7.6, waiting_for_writing=0.4)) == "copying 8 %"
    assert shares_line({}) == ""


@pytest.mark.parametrize(
    ("device", "readers", "sentence"),
    [
        ("cuda", 2, "the GPU waits 63 % of the time for reading: add reader threads"),
        ("mps", 2, "the GPU waits 63 % of the time for reading: add reader threads"),
        ("cpu", 2, "the model waits 63 % of the time for reading: add reader threads"),
        ("cuda", 8,
         "the GPU waits 63 % of the time for reading: the disk or the decoder is the limit"),
    ],
)  # fmt: skip
def test_waiting_for_reading(device, readers, sentence):
    seconds = spent(waiting_for_reading=63, model=30)
    assert bottleneck(seconds, device, readers, cores=8) == sentence


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        ({"model": 92, "waiting_for_reading": 3}, "the model takes 92 % of the time"),
        ({"model": 60, "waiting_for_writing": 30},
         "the run waits 30 % of the time for the disk it writes to"),
        ({"model": 50, "copying": 41, "waiting_for_reading": 5},
         "cutting and resizing windows takes 41 % of the time"),
        ({"model": 60, "waiting_for_reading": 20, "copying": 15}, ""),
        ({"model": 70, "waiting_for_reading": 24.9}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_limits_a_run(seconds, sentence):
    assert bottleneck(spent(**seconds), "cpu", 2) == sentence


def test_nothing_is_said_of_a_run_that_has_hardly_begun():
    begun = {"active": SHORTEST_S / 2, "waiting_for_reading": SHORTEST_S / 2}
    assert bottleneck(begun, "cpu", 2) == ""
    assert bottleneck({}, "cpu", 2) == ""
    timings = Timings()
    timings.add("active", SHORTEST_S / 2)
    timings.add("model", SHORTEST_S / 2)
    assert timings.shares == ""
    assert timings.record["shares"] == "model 100 %"  # once it is over it is all there is


def test_several_at_once_are_limited_by_the_model():
    seconds = spent(model=190)
    assert bottleneck(seconds, "cuda", 8, at_once=2) == "the model takes 95 % of the time"


def test_the_sentence_of_a_record_is_of_all_sessions():
    timings = Timings("cuda", readers=10**6)
    earlier = spent_before({"seconds": {"active": 80.0, "waiting_for_reading": 60.0}})
    timings.add("active", 20.0)
    timings.add("model", 20.0)
    limit = "the GPU waits 60 % of the time for reading: the disk or the decoder is the limit"
    assert timings.added_to(earlier)["bottleneck"] == limit
    assert timings.added_to(earlier)["shares"] == "reading 60 % · model 20 %"
    assert timings.bottleneck == "the model takes 100 % of the time"
    assert timings.shares == "model 100 %"
