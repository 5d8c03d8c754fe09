# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""Answers a plain click where Granian hands the request over: no coroutine, no event loop.

`schedule` is called on Granian's own thread, with the GIL, once for each request. A plain click
(`/counter/{id}`, `/pixel/{id}.gif`, `/click/{id}`, by its usual method, with a known ID) is
counted and answered in this call; everything else goes on to the event loop, where `ingest.http.app`
gives the same answers to the same requests, and all the others.

A POST with a small body is counted and answered when its body is in, not before: a `PendingClick`
waits for Granian's future, and `AnsweringLoop` calls it where Granian completes that future, on
the same thread. Larger bodies, those of unknown length and those of a GET go to the event loop.

Whether there is a body only the headers tell, and each look at them copies them all: 0.15 to 0.35
microseconds, once for each request.

Threads: `schedule` and the end of a body come on Granian's thread, `sweep` on that of the event
loop, each with the GIL. A click is taken out of its waiting, counted and metered in stretches that
run no Python code, so that neither thread sees the other's halves.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import uvloop

from ingest._fastcount cimport Counters
from ingest._meters cimport Meters

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const unsigned char *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    SAMPLE = 128
    MAX_DIGITS = 10
    MAX_BODY = 8192  # Granian keeps it whole, for each connection; longer ones are read in pieces
    SWEEPS = 8

SWEEPS_PER_TIMEOUT = SWEEPS
"""A body is late when it is not in after so many calls of `sweep`."""


cdef int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * <int64_t>1_000_000_000 + now.tv_nsec


cdef inline int64_t parse_id(const unsigned char *text, Py_ssize_t n) noexcept nogil:
    """The decimal ID of 1 to MAX_DIGITS digits; -1 for anything else, which the app judges."""
    cdef int64_t value = 0
    cdef Py_ssize_t i
    if n < 1 or n > MAX_DIGITS:
        return -1
    for i in range(n):
        if not c'0' <= text[i] <= c'9':
            return -1
        value = value * 10 + (text[i] - c'0')
    return value


cdef int64_t body_length(headers) except -2:
    """Bytes of a request's body; -1 where its headers don't tell."""
    cdef object text
    if "transfer-encoding" in headers:
        return -1
    text = headers.get("content-length")
    if text is None:
        return 0
    if not PyUnicode_IS_COMPACT_ASCII(text):
        return -1
    return parse_id(PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))


cdef bint is_plain(headers) except -1:
    """Whether a GET has no body, and no mark of a prefetch: else the app judges. No browser
    prefetches with POST."""
    return not (
        "sec-purpose" in headers or "purpose" in headers or "x-moz" in headers
        or body_length(headers)
    )


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class PendingClick:
    """A click whose body is on its way. Granian's future refers to it, and it to that future,
    until it is finished: by the body, by the end of the connection, or by `sweep`."""

    cdef Fastpath fastpath
    cdef object proto, future
    cdef int64_t banner_id, began
    cdef int sweeps

    def __call__(self, future):
        self.fastpath.finish(self, future)


class AnsweringLoop(uvloop.Loop):
    """The worker's event loop. Granian completes a future on its own thread, with the GIL, and
    calls this from there: a pending click is finished at once, without a switch of threads."""

    def call_soon_threadsafe(self, callback, *args, context=None):
        cdef PendingClick click
        if type(callback) is PendingClick:
            click = <PendingClick>callback
            return click.fastpath.finish(click, args[0])
        return super().call_soon_threadsafe(callback, *args, context=context)


@cython.final
cdef class Fastpath:
    """Counts and answers plain clicks; hands everything else on. See the stub."""

    cdef Counters counters
    cdef Meters meters
    cdef object hand_over, refuse, post_headers, get_headers, body, pixel_headers, pixel_body
    cdef dict redirects
    cdef set pending
    cdef Py_ssize_t counter_post, counter_get, pixel_get, click_get, clicks_cell
    cdef Py_ssize_t duration_sum, duration_first
    cdef int64_t bounds_ns[32]
    cdef int64_t body_max
    cdef Py_ssize_t bounds_n
    cdef bytes prefix
    cdef Py_ssize_t prefix_n
    cdef uint64_t seen
    cdef int64_t began  # of the request in `schedule`; 0: it is no sample

    def __init__(
        self, Counters counters, Meters meters, hand_over, refuse, answers, dict redirects, cells,
        int64_t body_max, bytes prefix=b"",
    ):
        self.counters = counters
        self.meters = meters
        self.hand_over = hand_over
        self.refuse = refuse
        self.redirects = redirects
        self.pending = set()
        self.body_max = min(body_max, MAX_BODY)
        self.prefix = prefix
        self.prefix_n = len(prefix)
        self.body, self.post_headers, self.get_headers = answers[:3]
        self.pixel_body, self.pixel_headers = answers[3:]
        self.counter_post = cells.counter_post
        self.counter_get = cells.counter_get
        self.pixel_get = cells.pixel_get
        self.click_get = cells.click_get
        self.clicks_cell = cells.clicks
        self.duration_first = cells.duration_first
        self.duration_sum = cells.duration_sum
        self.bounds_n = len(cells.duration_bounds_ns)
        if self.bounds_n > 32 or cells.last >= meters.size:
            raise ValueError("the meters are fewer than the fast path's cells need")
        for i in range(self.bounds_n):
            self.bounds_ns[i] = cells.duration_bounds_ns[i]

    def schedule(self, watcher):
        self.seen += 1
        self.began = monotonic_ns() if self.seen % SAMPLE == 0 else 0
        if not self.answer(watcher):
            self.hand_over(watcher)
        elif self.began:
            self.observe(monotonic_ns() - self.began)

    cdef void observe(self, int64_t took) noexcept:
        """One sample stands for SAMPLE requests, so that counts and rates keep their meaning."""
        cdef Py_ssize_t i = 0
        while i < self.bounds_n and took > self.bounds_ns[i]:
            i += 1
        self.meters.bump(self.duration_first + i, SAMPLE)
        self.meters.bump(self.duration_sum, took * SAMPLE)

    cdef bint answer(self, watcher) except -1:
        cdef object scope = watcher.scope
        cdef object path = scope.path
        cdef const unsigned char *text
        cdef Py_ssize_t n
        if not PyUnicode_IS_COMPACT_ASCII(path):
            return False
        text = PyUnicode_1BYTE_DATA(path)
        n = PyUnicode_GET_LENGTH(path)
        if self.prefix_n and n > self.prefix_n and text[self.prefix_n] == c'/':
            if memcmp(text, <const char *>self.prefix, self.prefix_n) == 0:
                text += self.prefix_n
                n -= self.prefix_n
        if n > 9 and memcmp(text, b"/counter/", 9) == 0:
            return self.answer_counter(watcher, scope, parse_id(text + 9, n - 9))
        if n > 11 and memcmp(text, b"/pixel/", 7) == 0 and memcmp(text + n - 4, b".gif", 4) == 0:
            return self.answer_pixel(watcher, scope, parse_id(text + 7, n - 11))
        if n > 7 and memcmp(text, b"/click/", 7) == 0:
            return self.answer_click(watcher, scope, parse_id(text + 7, n - 7))
        return False

    cdef bint answer_counter(self, watcher, scope, int64_t banner_id) except -1:
        cdef object method = scope.method
        cdef int64_t length
        if method == "POST":
            length = body_length(scope.headers)
            if length == 0:
                return self.answer_post(watcher.proto, banner_id)
            return 0 < length <= self.body_max and self.answer_later(watcher.proto, banner_id)
        if method != "GET" or not is_plain(scope.headers):
            return False
        if not self.count(banner_id, self.counter_get):
            return False
        watcher.proto.response_bytes(200, self.get_headers, self.body)
        return True

    cdef bint answer_post(self, proto, int64_t banner_id) except -1:
        if not self.count(banner_id, self.counter_post):
            return False
        proto.response_bytes(200, self.post_headers, self.body)
        return True

    cdef bint answer_pixel(self, watcher, scope, int64_t banner_id) except -1:
        if scope.method != "GET" or not is_plain(scope.headers):
            return False
        if not self.count(banner_id, self.pixel_get):
            return False
        watcher.proto.response_bytes(200, self.pixel_headers, self.pixel_body)
        return True

    cdef bint answer_click(self, watcher, scope, int64_t banner_id) except -1:
        cdef object headers = self.redirects.get(banner_id)
        if headers is None or scope.method != "GET" or not is_plain(scope.headers):
            return False
        if not self.count(banner_id, self.click_get):
            return False
        watcher.proto.response_empty(302, headers)
        return True

    cdef bint count(self, int64_t banner_id, Py_ssize_t cell) noexcept:
        """One click of a route; False, and nothing done, where the ID is none, or unknown."""
        if banner_id < 0 or not self.counters.count(banner_id, 1):
            return False
        self.meters.bump(cell, 1)
        self.meters.bump(self.clicks_cell, 1)
        return True

    # --- clicks with a body ---------------------------------------------------------------------

    cdef bint answer_later(self, proto, int64_t banner_id) except -1:
        """Ask for the body: Granian then calls `finish`, on this thread, so not before the end."""
        cdef PendingClick click
        if not 0 <= banner_id < self.counters.capacity:
            return False
        click = PendingClick.__new__(PendingClick)
        click.fastpath = self
        click.proto = proto
        click.banner_id = banner_id
        click.began = self.began
        self.began = 0
        click.future = proto()
        self.pending.add(click)
        click.future.add_done_callback(click)
        return True

    cdef object take(self, PendingClick click):
        """The object that answers a click. The first caller gets it and finishes the click; others
        get None."""
        cdef object proto = click.proto
        click.proto = None
        click.future = None
        self.pending.discard(click)
        return proto

    cdef object finish(self, PendingClick click, future):
        """Granian's future is done: the body is in, or broke off."""
        cdef object proto = self.take(click)
        if proto is None:
            return None
        try:
            future.result()
        except Exception:
            self.refuse(proto, False)
            return None
        self.answer_post(proto, click.banner_id)
        if click.began:
            self.observe(monotonic_ns() - click.began)

    def sweep(self):
        cdef PendingClick click
        for click in list(self.pending):
            click.sweeps += 1
            if click.sweeps > SWEEPS:
                self.give_up(click)

    cdef object give_up(self, PendingClick click):
        """The time is over: answer so, and let go of the body, which closes the connection."""
        cdef object future = click.future, proto = self.take(click)
        if proto is None:
            return None
        self.refuse(proto, True)
        future.cancel()
