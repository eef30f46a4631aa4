import gc
import threading
from functools import partial
from weakref import ref

from napari_wsi_heatmap.readqueue import ReadQueue
from recording import wait_until


class Reader:
    """Notes what it reads; each read waits until the test permits it."""

    def __init__(self, threads=1, open_=False):
        self.begun, self.delivered = [], []
        self.permits = threading.Semaphore(1000 if open_ else 0)
        read = partial(self.read, self.begun, self.permits)
        self.queue = ReadQueue(read, self, threads=threads, name="reading", deliver=self.deliver)

    @staticmethod
    def read(begun, permits, job):
        begun.append(job)
        assert permits.acquire(timeout=20)
        if job == "bad":
            raise ZeroDivisionError
        return f"{job}!"

    def deliver(self, job, result):
        if job == "refused":
            raise ZeroDivisionError
        self.delivered.append((job, result))


def test_jobs_are_read_in_the_order_of_the_list():
    reader = Reader(open_=True)
    reader.queue.replace("abc")
    wait_until(lambda: reader.queue.idle)
    assert reader.begun == ["a", "b", "c"]
    assert reader.delivered == [("a", "a!"), ("b", "b!"), ("c", "c!")]


def test_the_newest_list_wins_and_what_is_dropped_is_never_begun():
    reader = Reader()
    reader.queue.replace("abcd")
    wait_until(lambda: reader.begun == ["a"])
    reader.queue.replace("xy")
    reader.permits.release(10)
    wait_until(lambda: reader.queue.idle)
    assert reader.begun == ["a", "x", "y"]
    assert [job for job, _ in reader.delivered] == ["x", "y"], "nobody wishes for a any more"


def test_what_is_at_work_is_not_begun_again_and_is_delivered():
    reader = Reader()
    reader.queue.replace("ab")
    wait_until(lambda: reader.begun == ["a"])
    reader.queue.replace("ca")
    reader.permits.release(10)
    wait_until(lambda: reader.queue.idle)
    assert reader.begun == ["a", "c"]
    assert [job for job, _ in reader.delivered] == ["a", "c"]


def test_several_threads_read_at_the_same_time_and_no_more_than_allowed():
    reader = Reader(threads=3)
    reader.queue.replace("abcdef")
    wait_until(lambda: len(reader.begun) == 3)
    for list_ in ("abcdef", "fed", "abcdef"):
        reader.queue.replace(list_)
    assert len(reader.begun) == 3
    reader.permits.release(20)
    wait_until(lambda: reader.queue.idle)
    assert sorted(reader.begun) == list("abcdef")


def test_an_error_ends_nothing():
    reader = Reader(open_=True)
    reader.queue.replace(["bad", "refused", "good"])
    wait_until(lambda: reader.queue.idle)
    assert reader.delivered == [("good", "good!")]


def test_threads_end_when_there_is_nothing_to_read():
    reader = Reader(threads=2, open_=True)
    reader.queue.replace("abcd")
    wait_until(lambda: reader.queue.idle)
    wait_until(lambda: all(thread.name != "reading" for thread in threading.enumerate()))


def test_nobody_is_kept_alive_and_the_rest_is_not_read():
    reader = Reader()
    begun, permits, queue, gone = reader.begun, reader.permits, reader.queue, ref(reader)
    reader.queue.replace("abc")
    wait_until(lambda: begun == ["a"])
    del reader
    gc.collect()
    permits.release(10)
    wait_until(lambda: queue.idle)
    gc.collect()
    assert gone() is None
    assert begun == ["a"]
