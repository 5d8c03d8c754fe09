from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    EPOCHS = 3

cdef struct Epoch:
    uint64_t seq
    int64_t minute
    uint64_t base
    uint64_t total
    int64_t frozen_at
    uint64_t max_pairs
    uint64_t reserved[2]

cdef struct Header:
    char magic[8]
    uint32_t version
    uint32_t capacity
    unsigned char source[16]
    char boot_id[36]
    uint32_t active
    uint64_t inode
    uint64_t device
    uint64_t max_pairs
    uint64_t reserved[3]
    Epoch epochs[EPOCHS]


cdef class Counters:
    cdef Header *header
    cdef uint64_t *counts[EPOCHS]
    cdef uint32_t *touched[EPOCHS]
    cdef uint32_t touched_n[EPOCHS]
    cdef uint32_t now_active
    cdef size_t size
    cdef readonly uint32_t capacity
    cdef public int64_t clock_offset

    cdef map(self, int fd, uint32_t capacity, bint allocate)
    cdef void recover(self) noexcept
    cdef bint count(self, uint64_t banner_id, uint64_t clicks) noexcept
    cdef void add(self, uint32_t banner_id, uint64_t clicks) noexcept
    cdef void enter_minute(self, int64_t minute, int64_t now_ns) noexcept
    cdef int clear_side(self) noexcept
    cdef int frozen_side(self, uint64_t from_seq) noexcept
    cdef void freeze(self, uint32_t into, int64_t minute, int64_t now_ns) noexcept
    cdef uint32_t limit_of(self, uint32_t side) noexcept
    cdef list drain(self, uint32_t side, int64_t sealed_at)
    cdef void sort_touched(self, uint32_t side) noexcept
    cpdef int64_t now(self)
