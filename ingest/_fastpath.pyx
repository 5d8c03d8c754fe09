# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""Answers a plain click where Granian hands the request over: no coroutine, no event loop.

`schedule` is called on Granian's own thread, with the GIL, once for each request. A plain click
(`/counter/{id}`, `/pixel/{id}.gif`, `/click/{id}`, by its usual method, with a known ID) is
counted and answered in this call; everything else goes on to the event loop, where `ingest.http.app`
gives the same answers to the same requests, and all the others.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from ingest._fastcount cimport Counters
from ingest._meters cimport Meters

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const unsigned char *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    SAMPLE = 128
    MAX_DIGITS = 10


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


@cython.final
cdef class Fastpath:
    """Counts and answers plain clicks; hands everything else on. See the stub."""

    cdef Counters counters
    cdef Meters meters
    cdef object hand_over, post_headers, get_headers, body, pixel_headers, pixel_body
    cdef dict redirects
    cdef Py_ssize_t counter_post, counter_get, pixel_get, click_get, clicks_cell
    cdef Py_ssize_t duration_sum, duration_first
    cdef int64_t bounds_ns[32]
    cdef Py_ssize_t bounds_n
    cdef uint64_t seen

    def __init__(self, Counters counters, Meters meters, hand_over, answers, dict redirects, cells):
        self.counters = counters
        self.meters = meters
        self.hand_over = hand_over
        self.redirects = redirects
        self.body, self.post_headers, self.get_headers, self.pixel_body, self.pixel_headers = answers
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
        cdef int64_t began = 0
        self.seen += 1
        if self.seen % SAMPLE == 0:
            began = monotonic_ns()
        if not self.answer(watcher):
            self.hand_over(watcher)
        elif began:
            self.observe(monotonic_ns() - began)

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
        if n > 9 and memcmp(text, b"/counter/", 9) == 0:
            return self.answer_counter(watcher, scope, parse_id(text + 9, n - 9))
        if n > 11 and memcmp(text, b"/pixel/", 7) == 0 and memcmp(text + n - 4, b".gif", 4) == 0:
            return self.answer_pixel(watcher, scope, parse_id(text + 7, n - 11))
        if n > 7 and memcmp(text, b"/click/", 7) == 0:
            return self.answer_click(watcher, scope, parse_id(text + 7, n - 7))
        return False

    cdef bint may_be_ahead(self, scope) except -1:
        """Whether nobody may have asked for this yet (a prefetch): the app judges. Browsers do so
        with GET alone, hence a POST is spared the look, which copies the headers."""
        cdef object headers = scope.headers
        return "sec-purpose" in headers or "purpose" in headers or "x-moz" in headers

    cdef bint answer_counter(self, watcher, scope, int64_t banner_id) except -1:
        cdef object method = scope.method
        cdef bint post = method == "POST"
        if banner_id < 0 or not (post or method == "GET"):
            return False
        if not post and self.may_be_ahead(scope):
            return False
        if not self.counters.count(banner_id, 1):
            return False
        self.meters.bump(self.counter_post if post else self.counter_get, 1)
        self.meters.bump(self.clicks_cell, 1)
        watcher.proto.response_bytes(
            200, self.post_headers if post else self.get_headers, self.body
        )
        return True

    cdef bint answer_pixel(self, watcher, scope, int64_t banner_id) except -1:
        if banner_id < 0 or scope.method != "GET" or self.may_be_ahead(scope):
            return False
        if not self.counters.count(banner_id, 1):
            return False
        self.meters.bump(self.pixel_get, 1)
        self.meters.bump(self.clicks_cell, 1)
        watcher.proto.response_bytes(200, self.pixel_headers, self.pixel_body)
        return True

    cdef bint answer_click(self, watcher, scope, int64_t banner_id) except -1:
        if banner_id < 0 or scope.method != "GET":
            return False
        headers = self.redirects.get(banner_id)
        if headers is None or self.may_be_ahead(scope) or not self.counters.count(banner_id, 1):
            return False
        self.meters.bump(self.click_get, 1)
        self.meters.bump(self.clicks_cell, 1)
        watcher.proto.response_empty(302, headers)
        return True
