from libc.stdint cimport uint64_t

cdef class Meters:
    cdef uint64_t *cells
    cdef readonly Py_ssize_t size
    cdef object _map
    cdef object _view

    cdef void bump(self, Py_ssize_t cell, uint64_t n) noexcept
    cdef Py_ssize_t check(self, Py_ssize_t cell) except -1
