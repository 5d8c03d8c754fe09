# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""The file of one worker's click counters: three epochs in mapped, fully allocated memory.

Why mapped: the pages belong to the kernel, so that a process may die at any instruction and leave
its counts behind. Why epochs: one counts while another, frozen, is being sealed; no click waits.
Why three: the minute may end while a disk takes its time, and the next minute's clicks need a
place of their own.

Layout: a header page (struct Header), then for each epoch `capacity` counts (u64). The list of
the IDs touched lives in ordinary memory: recovery trusts the counts alone and reads them all.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

import os
from uuid import UUID

cdef extern from "fcntl.h" nogil:
    int posix_fallocate(int fd, long offset, long length)

cdef enum:
    PAGE = 4096
    VERSION = 2

cdef bytes MAGIC = b"CMCOUNT\0"


class CountersError(Exception):
    """A counters file that can't be made, or is not a Clickmill file; the message says what to do."""


cdef class Epochs:
    """Three epochs of click counts, banner IDs 0 to capacity-1. See the stub for its methods."""

    def __dealloc__(self):
        cdef int side
        if self.header != NULL:
            munmap(self.header, self.size)
        for side in range(EPOCHS):
            free(self.touched[side])

    @classmethod
    def create(cls, path, bytes source, str boot_id, uint32_t capacity):
        cdef Epochs self = cls.__new__(cls)
        cdef bytes boot = boot_id.encode("ascii")
        if len(source) != 16 or len(boot) != 36 or not 1 <= capacity <= 1 << 26:
            raise CountersError(
                f"counters take a source of 16 bytes, a boot ID of 36 characters and a capacity of "
                f"1 to {1 << 26} IDs, not {len(source)}, {len(boot)} and {capacity}"
            )
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            map_file(self, fd, capacity, True)
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

    @classmethod
    def open(cls, path):
        cdef Epochs self = cls.__new__(cls)
        with open(path, "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(16)
            if size < PAGE or head[:8] != MAGIC:
                raise CountersError(f"{path} is no counters file: set it aside")
            version = int.from_bytes(head[8:12], "little")
            capacity = int.from_bytes(head[12:16], "little")
            if version != VERSION or size != PAGE + capacity * 8 * EPOCHS:
                raise CountersError(
                    f"{path} is of version {version} with {capacity} IDs in {size} bytes: "
                    f"this program reads version {VERSION}; start the one that wrote it"
                )
            map_file(self, file.fileno(), capacity, False)
        recover(self)
        return self

    @property
    def source(self):
        return UUID(bytes=self.header.source[:16])

    @property
    def boot_id(self):
        return self.header.boot_id[:36].decode("ascii", "replace")

    @property
    def identity(self):
        return self.header.device, self.header.inode


cdef object map_file(Epochs self, int fd, uint32_t capacity, bint allocate):
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
        if self.touched[side] == NULL:
            raise MemoryError(f"no memory for {capacity} banner IDs")


cdef void recover(Epochs self) noexcept:
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
