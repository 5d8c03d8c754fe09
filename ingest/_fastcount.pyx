# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""The click counters of one worker: count a click, freeze the epoch, clear it once it is sealed.

Why Cython: this is the one line of the system that runs for each click. The class is final, and
everything that a click needs is in this module, so that its calls are direct calls of C functions.

Threads: every method runs under the GIL and calls no Python code between reading and writing, so
that the thread that answers clicks and the event loop's thread never see each other's halves.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from ingest._epochs cimport EPOCHS, NO_MINUTE, Epoch
from ingest._parts cimport limit_of, parts_needed, parts_of

import sys

cdef extern from *:
    """
    /* A process may die between two stores: those before this line come first, always. */
    #define compiler_barrier() __asm__ __volatile__("" ::: "memory")
    """
    void compiler_barrier() nogil

cdef enum:
    SECONDS_PER_MINUTE = 60

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "clickmill counts clicks under the GIL and is not proven safe without it: "
        "use a Python build with the GIL, or start it with PYTHON_GIL=1"
    )


@cython.final
cdef class Counters(Epochs):
    """Counts clicks in the active epoch. See the stub for its methods."""

    # --- the click path ---------------------------------------------------------------------

    cdef bint count(self, uint64_t banner_id, uint64_t clicks) noexcept:
        """Count at the clock's minute; False, and nothing done, where the ID is over the maximum."""
        cdef timespec now
        cdef int64_t seconds
        if banner_id >= self.capacity:
            return False
        # The precise clock, not the coarse one: it costs 20 ns more here, and the coarse one is
        # up to 4 ms late, which would put a click into the minute before its answer's.
        clock_gettime(CLOCK_REALTIME, &now)
        seconds = now.tv_sec + self.clock_offset
        cdef Epoch *epoch = &self.header.epochs[self.now_active]
        if <uint64_t>(seconds - epoch.minute * SECONDS_PER_MINUTE) >= SECONDS_PER_MINUTE:
            self.enter_minute(
                seconds // SECONDS_PER_MINUTE, seconds * 1_000_000_000 + now.tv_nsec
            )
        self.add(<uint32_t>banner_id, clicks)
        return True

    cdef inline void add(self, uint32_t banner_id, uint64_t clicks) noexcept:
        cdef uint32_t side = self.now_active
        cdef uint64_t *slot = &self.counts[side][banner_id]
        if slot[0] == 0:
            self.touched[side][self.touched_n[side]] = banner_id
            self.touched_n[side] += 1
        slot[0] += clicks
        self.header.epochs[side].total += clicks

    cdef void enter_minute(self, int64_t minute, int64_t now_ns) noexcept:
        """The first click of another minute: give it an epoch of its own, if one is clear."""
        cdef int side
        if self.touched_n[self.now_active] == 0:
            self.header.epochs[self.now_active].minute = minute
            return
        side = self.clear_side()
        if side >= 0:
            self.freeze(side, minute, now_ns)
        # Else nothing can be sealed for a minute and more: this click smears into the older one.

    cdef int clear_side(self) noexcept:
        """The first epoch that holds no click and is not the active one; -1 where there is none.

        The first, not the next in turn: so the third stays out of memory until it is needed.
        """
        cdef int side
        for side in range(EPOCHS):
            if side != <int>self.now_active and self.touched_n[side] == 0:
                return side
        return -1

    cdef int frozen_side(self, uint64_t from_seq) noexcept:
        """The frozen epoch of the lowest seq from this one on; -1 where there is none."""
        cdef int side, found = -1
        for side in range(EPOCHS):
            if side == <int>self.now_active or self.touched_n[side] == 0:
                continue
            if self.header.epochs[side].seq < from_seq:
                continue
            if found < 0 or self.header.epochs[side].seq < self.header.epochs[found].seq:
                found = side
        return found

    cdef void freeze(self, uint32_t into, int64_t minute, int64_t now_ns) noexcept:
        """Stop counting in the active epoch, and go on in the clear one `into`."""
        cdef uint32_t side = self.now_active
        cdef Epoch *old = &self.header.epochs[side]
        cdef Epoch *new = &self.header.epochs[into]
        old.frozen_at = now_ns
        # It stays with the epoch: sealed again after a death, it must give the same parts.
        old.max_pairs = limit_of(self.header.max_pairs)
        new.seq = old.seq + parts_needed(self.touched_n[side], <uint32_t>old.max_pairs)
        new.base = old.base + old.total
        new.total = 0
        new.minute = minute
        new.frozen_at = 0
        compiler_barrier()
        self.header.active = into
        compiler_barrier()
        self.now_active = into

    # --- for Python ---------------------------------------------------------------------------

    def hit(self, uint64_t banner_id, uint64_t clicks=1):
        return self.count(banner_id, clicks)

    def hit_at(self, uint64_t banner_id, uint64_t clicks, int64_t now_ns):
        cdef int64_t minute = now_ns // 1_000_000_000 // SECONDS_PER_MINUTE
        if banner_id >= self.capacity:
            return False
        if self.header.epochs[self.now_active].minute != minute:
            self.enter_minute(minute, now_ns)
        self.add(<uint32_t>banner_id, clicks)
        return True

    def hit_all(self, list clicks, uint64_t most=UINT64_MAX):
        cdef uint64_t banner_id, many
        cdef uint64_t total = 0
        cdef Py_ssize_t i, n = len(clicks)
        cdef bytes memory = PyBytes_FromStringAndSize(NULL, 2 * n * sizeof(uint64_t))
        cdef uint64_t *wanted = <uint64_t *>PyBytes_AS_STRING(memory)
        for i in range(n):
            item = clicks[i]
            banner_id = item.bannerID
            many = item.count
            if banner_id >= self.capacity:
                return -1 - i
            wanted[2 * i] = banner_id
            wanted[2 * i + 1] = many
            total += many
        if total > most:
            return total
        # From here on no Python code runs: the whole batch, or nothing of it.
        if n and self.count(wanted[0], wanted[1]):
            for i in range(1, n):
                self.add(<uint32_t>wanted[2 * i], wanted[2 * i + 1])
        return total

    def flip(self, now_ns=None):
        cdef int64_t now = self.now() if now_ns is None else now_ns
        if self.touched_n[self.now_active] == 0 or self.frozen_side(0) >= 0:
            return False
        self.freeze(self.clear_side(), NO_MINUTE, now)
        return True

    def frozen(self):
        cdef int side = self.frozen_side(0)
        return [] if side < 0 else parts_of(self, side, self.header.epochs[side].frozen_at)

    def rest(self, int64_t sealed_at):
        cdef list parts = []
        cdef int side = self.frozen_side(0)
        while side >= 0:
            parts += parts_of(self, side, self.header.epochs[side].frozen_at)
            side = self.frozen_side(self.header.epochs[side].seq + 1)
        return parts + parts_of(self, self.now_active, sealed_at)

    def clear(self):
        cdef int side = self.frozen_side(0)
        cdef uint32_t i
        if side < 0:
            return
        for i in range(self.touched_n[side]):
            self.counts[side][self.touched[side][i]] = 0
        self.header.epochs[side].total = 0
        self.touched_n[side] = 0

    cpdef int64_t now(self):
        cdef timespec now
        clock_gettime(CLOCK_REALTIME, &now)
        return (now.tv_sec + self.clock_offset) * 1_000_000_000 + now.tv_nsec

    def idle_as_of(self):
        return 0 if self.touched_n[self.now_active] or self.frozen_side(0) >= 0 else self.now()

    @property
    def active_minute(self):
        return self.header.epochs[self.now_active].minute

    @property
    def pending(self):
        cdef uint64_t clicks = 0
        cdef int side
        for side in range(EPOCHS):
            clicks += self.header.epochs[side].total
        return clicks

    @property
    def total(self):
        cdef Epoch *epoch = &self.header.epochs[self.now_active]
        return epoch.base + epoch.total

    @property
    def max_pairs(self):
        return limit_of(self.header.max_pairs)

    @max_pairs.setter
    def max_pairs(self, uint32_t pairs):
        self.header.max_pairs = max(pairs, <uint32_t>1)

    @property
    def active_seq(self):
        return self.header.epochs[self.now_active].seq

    @property
    def next_seq(self):
        cdef uint64_t seq = self.header.epochs[self.now_active].seq
        cdef uint32_t n = self.touched_n[self.now_active]
        return seq + parts_needed(n, limit_of(self.header.max_pairs)) if n else seq
