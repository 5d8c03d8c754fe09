# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""The click counters of one worker: three epochs in one mapped, fully allocated file.

Why Cython: this is the one line of the system that runs for each click. Why mapped: the pages
belong to the kernel, so that a process may die at any instruction and leave its counts behind.
Why epochs: one counts while another, frozen, is being sealed; no click waits. Why three: the
minute may end while a disk takes its time, and the next minute's clicks need a place of their own.

Layout: a header page (struct Header), then for each epoch `capacity` counts (u64). The list of
the IDs touched lives in ordinary memory: recovery trusts the counts alone and reads them all.

Threads: every method runs under the GIL and calls no Python code between reading and writing, so
that the thread that answers clicks and the event loop's thread never see each other's halves.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcmp, memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

import os
import sys
from uuid import UUID

cdef extern from "fcntl.h" nogil:
    int posix_fallocate(int fd, long offset, long length)

cdef extern from *:
    """
    #define CLICKMILL_MAX_PAIRS 65536u
    #define NS_PER_MINUTE 60000000000LL
    /* A process may die between two stores: those before this line come first, always. */
    #define compiler_barrier() __asm__ __volatile__("" ::: "memory")
    """
    const uint32_t CLICKMILL_MAX_PAIRS
    const int64_t NS_PER_MINUTE
    void compiler_barrier() nogil

cdef enum:
    PAGE = 4096
    VERSION = 2
    NO_MINUTE = -1
    SECONDS_PER_MINUTE = 60

MAX_PAIRS = CLICKMILL_MAX_PAIRS
"""Pairs of one part at most: clickmill.wire's limit, asserted by ingest.durable.source."""

cdef bytes MAGIC = b"CMCOUNT\0"

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "clickmill counts clicks under the GIL and is not proven safe without it: "
        "use a Python build with the GIL, or start it with PYTHON_GIL=1"
    )


Part = tuple[int, int, int, int, bytes, bytes]
"""(seq, minute, sealed_at, total, ids, counts): see the stub."""


class CountersError(Exception):
    """A counters file that can't be made, or is not a Clickmill file; the message says what to do."""


cdef int by_value(const void *left, const void *right) noexcept nogil:
    cdef uint32_t a = (<const uint32_t *>left)[0]
    cdef uint32_t b = (<const uint32_t *>right)[0]
    return (a > b) - (a < b)


cdef inline uint64_t parts_of(uint32_t pairs, uint32_t limit) noexcept nogil:
    """How many frames an epoch with so many pairs takes; an empty one still takes a seq."""
    return 1 if pairs == 0 else (pairs - 1) // limit + 1


@cython.final
cdef class Counters:
    """One worker's click counters, banner IDs 0 to capacity-1. See the stub for its methods."""

    def __cinit__(self):
        self.header = NULL
        self.now_active = 0
        self.clock_offset = 0

    def __dealloc__(self):
        cdef int side
        if self.header != NULL:
            munmap(self.header, self.size)
        for side in range(EPOCHS):
            free(self.touched[side])

    @staticmethod
    def create(path, bytes source, str boot_id, uint32_t capacity):
        cdef Counters self = Counters.__new__(Counters)
        cdef bytes boot = boot_id.encode("ascii")
        if len(source) != 16 or len(boot) != 36 or not 1 <= capacity <= 1 << 26:
            raise CountersError(
                f"counters take a source of 16 bytes, a boot ID of 36 characters and a capacity of "
                f"1 to {1 << 26} IDs, not {len(source)}, {len(boot)} and {capacity}"
            )
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.map(fd, capacity, True)
            stat = os.fstat(fd)
        finally:
            os.close(fd)
        self.header.version = VERSION
        self.header.capacity = capacity
        memcpy(self.header.source, PyBytes_AS_STRING(source), 16)
        memcpy(self.header.boot_id, PyBytes_AS_STRING(boot), 36)
        self.header.inode = stat.st_ino
        self.header.device = stat.st_dev
        self.header.epochs[0].seq = 1
        self.header.epochs[0].minute = NO_MINUTE
        # The magic comes last: a death before this line leaves no counters, and no click in them.
        memcpy(self.header.magic, PyBytes_AS_STRING(MAGIC), 8)
        return self

    @staticmethod
    def open(path):
        cdef Counters self = Counters.__new__(Counters)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            head = os.pread(fd, 16, 0)
            if size < PAGE or head[:8] != MAGIC:
                raise CountersError(f"{path} is no counters file: set it aside")
            version = int.from_bytes(head[8:12], "little")
            capacity = int.from_bytes(head[12:16], "little")
            if version != VERSION or size != PAGE + capacity * 8 * EPOCHS:
                raise CountersError(
                    f"{path} is of version {version} with {capacity} IDs in {size} bytes: "
                    f"this program reads version {VERSION}; start the one that wrote it"
                )
            self.map(fd, capacity, False)
        finally:
            os.close(fd)
        self.recover()
        return self

    cdef map(self, int fd, uint32_t capacity, bint allocate):
        cdef int error
        cdef void *base
        cdef int side
        self.capacity = capacity
        self.size = PAGE + <size_t>capacity * 8 * EPOCHS
        if allocate:
            # Blocks for all of it now: a sparse page on a full disk would be SIGBUS at a click.
            error = posix_fallocate(fd, 0, self.size)
            if error:
                raise OSError(error, f"no room for the click counters ({self.size} bytes): "
                                     f"{os.strerror(error)}")
        base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise MemoryError(f"the click counters ({self.size} bytes) can't be mapped")
        self.header = <Header *>base
        for side in range(EPOCHS):
            self.counts[side] = <uint64_t *>(<char *>base + PAGE) + <size_t>capacity * side
            self.touched[side] = <uint32_t *>calloc(capacity, sizeof(uint32_t))
            self.touched_n[side] = 0
            if self.touched[side] == NULL:
                raise MemoryError(f"no memory for {capacity} banner IDs")

    cdef void recover(self) noexcept:
        """Rebuild what a death may have left half done: the touched lists and the totals."""
        cdef int side
        cdef uint32_t i
        cdef uint64_t total
        self.now_active = min(self.header.active, <uint32_t>(EPOCHS - 1))
        for side in range(EPOCHS):
            total = 0
            for i in range(self.capacity):
                if self.counts[side][i]:
                    self.touched[side][self.touched_n[side]] = i
                    self.touched_n[side] += 1
                    total += self.counts[side][i]
            self.header.epochs[side].total = total

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
        old.max_pairs = self.limit_of(side)
        new.seq = old.seq + parts_of(self.touched_n[side], <uint32_t>old.max_pairs)
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
        cdef int64_t minute = now_ns // NS_PER_MINUTE
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
        cdef uint64_t *wanted = <uint64_t *>calloc(2 * n + 1, sizeof(uint64_t))
        if wanted == NULL:
            raise MemoryError(f"no memory for a batch of {n} clicks")
        try:
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
        finally:
            free(wanted)

    def flip(self, now_ns=None):
        cdef int64_t now = self.now() if now_ns is None else now_ns
        if self.touched_n[self.now_active] == 0 or self.frozen_side(0) >= 0:
            return False
        self.freeze(self.clear_side(), NO_MINUTE, now)
        return True

    def frozen(self):
        cdef int side = self.frozen_side(0)
        return [] if side < 0 else self.drain(side, self.header.epochs[side].frozen_at)

    def rest(self, int64_t sealed_at):
        cdef list parts = []
        cdef int side = self.frozen_side(0)
        while side >= 0:
            parts += self.drain(side, self.header.epochs[side].frozen_at)
            side = self.frozen_side(self.header.epochs[side].seq + 1)
        return parts + self.drain(self.now_active, sealed_at)

    cdef uint32_t limit_of(self, uint32_t side) noexcept:
        """The most pairs in a part of this epoch; 0, in an older file, is the most there may be."""
        cdef uint64_t limit
        limit = self.header.epochs[side].max_pairs if side != self.now_active else self.header.max_pairs
        return CLICKMILL_MAX_PAIRS if limit == 0 else <uint32_t>min(limit, <uint64_t>CLICKMILL_MAX_PAIRS)

    cdef list drain(self, uint32_t side, int64_t sealed_at):
        """Parts by ascending ID, so that sealing again after a death gives the same parts."""
        cdef Epoch *epoch = &self.header.epochs[side]
        cdef uint32_t n = self.touched_n[side]
        cdef uint32_t *ids = self.touched[side]
        cdef uint64_t *counts = self.counts[side]
        cdef uint64_t total = epoch.base
        cdef uint32_t start = 0, size, i
        cdef uint32_t limit = self.limit_of(side)
        cdef list parts = []
        self.sort_touched(side)
        while start < n:
            size = min(n - start, limit)
            packed_ids = PyBytes_FromStringAndSize(<char *>(ids + start), size * 4)
            packed_counts = PyBytes_FromStringAndSize(NULL, size * 8)
            values = <uint64_t *>PyBytes_AS_STRING(packed_counts)
            for i in range(size):
                values[i] = counts[ids[start + i]]
                total += values[i]
            start += size
            parts.append((
                epoch.seq + len(parts), epoch.minute, sealed_at if start == n else 0, total,
                packed_ids, packed_counts,
            ))
        return parts

    cdef void sort_touched(self, uint32_t side) noexcept:
        """Sort few, read off many: both cost as much as was touched, within a factor."""
        cdef uint32_t *ids = self.touched[side]
        cdef uint32_t n = self.touched_n[side]
        cdef uint32_t i, k = 0
        if n < self.capacity // 16:
            qsort(ids, n, sizeof(uint32_t), by_value)
            return
        for i in range(self.capacity):
            if self.counts[side][i]:
                ids[k] = i
                k += 1

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
        return self.limit_of(self.now_active)

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
        return seq + parts_of(n, self.limit_of(self.now_active)) if n else seq

    @property
    def source(self):
        return UUID(bytes=self.header.source[:16])

    @property
    def boot_id(self):
        return self.header.boot_id[:36].decode("ascii", "replace")

    @property
    def identity(self):
        return self.header.device, self.header.inode
