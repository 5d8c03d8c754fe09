from libc.stdint cimport int64_t, uint32_t, uint64_t

from ingest._epochs cimport Epochs


cdef class Counters(Epochs):
    cdef public int64_t clock_offset

    cdef bint count(self, uint64_t banner_id, uint64_t clicks) noexcept
    cdef void add(self, uint32_t banner_id, uint64_t clicks) noexcept
    cdef void enter_minute(self, int64_t minute, int64_t now_ns) noexcept
    cdef int clear_side(self) noexcept
    cdef int frozen_side(self, uint64_t from_seq) noexcept
    cdef void freeze(self, uint32_t into, int64_t minute, int64_t now_ns) noexcept
    cpdef int64_t now(self)
