from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    EPOCHS = 3
    NO_MINUTE = -1

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


cdef class Epochs:
    cdef Header *header
    cdef uint64_t *counts[EPOCHS]
    cdef uint32_t *touched[EPOCHS]
    cdef uint32_t touched_n[EPOCHS]
    cdef uint32_t now_active
    cdef size_t size
    cdef readonly uint32_t capacity
