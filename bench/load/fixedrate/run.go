package main

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

const (
	drainSeconds   = 5       // longest wait for the last answers
	maxDue         = 1 << 16 // requests that may wait on one connection: more is overload
	maxAnswer      = 4096    // longest answer, head and body
	sysEpollPwait2 = 441     // epoll_pwait2: the wait in nanoseconds; Linux 5.11 and later
)

var (
	endOfHead = []byte("\r\n\r\n")
	statusOK  = []byte("HTTP/1.1 200")
)

// connection is one socket with the requests that are due on it, oldest first; the first of
// them is the one under way.
type connection struct {
	fd      int
	due     []int64 // nanoseconds after the start
	waiting bool    // a request was sent and its answer is not here yet
	buffer  []byte
}

// run is the state of the whole measurement.
type run struct {
	o                              options
	requests                       [][]byte
	connections                    []*connection
	epoll                          int
	start                          time.Time
	next, sent, answered           int
	wrong, broken                  int
	latencies, lateness            []int64
	lastAnswer, warmupEnds, endsAt int64
	wanted                         []byte // the body expected
}

// newRun connects and prepares.
func newRun(o options) (*run, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	expected := int(o.rate * (o.seconds + o.warmup))
	r := &run{
		o: o, requests: requests(o), epoll: epoll, wanted: []byte(o.body),
		latencies: make([]int64, 0, expected), lateness: make([]int64, 0, expected),
		warmupEnds: int64(o.warmup * 1e9), endsAt: int64((o.seconds + o.warmup) * 1e9),
	}
	for i := range o.connections {
		fd, err := connect(o.port)
		if err != nil {
			return nil, err
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			return nil, err
		}
		r.connections = append(r.connections, &connection{fd: fd, buffer: make([]byte, 0, maxAnswer)})
	}
	return r, nil
}

// dueAt is when request number i is due, in nanoseconds after the start.
func (r *run) dueAt(i int) int64 { return int64(float64(i) * 1e9 / r.o.rate) }

// now is nanoseconds after the start.
func (r *run) now() int64 { return int64(time.Since(r.start)) }

// loop sends what is due, reads what has come, and waits for the earlier of the two.
func (r *run) loop() error {
	r.start = time.Now()
	events := make([]syscall.EpollEvent, len(r.connections))
	for {
		now := r.now()
		if err := r.sendDue(now); err != nil {
			return err
		}
		if r.over(now) {
			return nil
		}
		ready, err := r.wait(events, now)
		if err != nil {
			return err
		}
		for _, event := range events[:ready] {
			if err := r.receive(r.connections[event.Fd]); err != nil {
				return err
			}
		}
	}
}

// over is true when all answers are here, or the wait for them is too long.
func (r *run) over(now int64) bool {
	if r.dueAt(r.next) < r.endsAt {
		return false
	}
	return r.answered == r.next || now > r.endsAt+drainSeconds*1e9
}

// sendDue gives every request that is due to its connection.
func (r *run) sendDue(now int64) error {
	for ; r.dueAt(r.next) <= now && r.dueAt(r.next) < r.endsAt; r.next++ {
		c := r.connections[r.next%len(r.connections)]
		if len(c.due) >= maxDue {
			return errors.New("the server is far behind this rate: choose a lower one")
		}
		c.due = append(c.due, r.dueAt(r.next))
		if !c.waiting {
			if err := r.send(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// send sends the oldest request due on a connection.
func (r *run) send(c *connection) error {
	request := r.requests[r.sent%len(r.requests)]
	if n, err := syscall.Write(c.fd, request); err != nil || n != len(request) {
		r.broken++
		return fmt.Errorf("a request could not be sent whole: %d bytes, %w", n, err)
	}
	if c.due[0] >= r.warmupEnds {
		r.lateness = append(r.lateness, r.now()-c.due[0])
	}
	c.waiting = true
	r.sent++
	return nil
}

// receive reads what a connection has, and sends its next request when the answer is whole.
func (r *run) receive(c *connection) error {
	n, err := syscall.Read(c.fd, c.buffer[len(c.buffer):cap(c.buffer)])
	if errors.Is(err, syscall.EAGAIN) {
		return nil
	}
	if err != nil || n <= 0 {
		r.broken++
		return fmt.Errorf("a connection broke with %d requests due on it: %w", len(c.due), err)
	}
	c.buffer = c.buffer[:len(c.buffer)+n]
	head := bytes.Index(c.buffer, endOfHead)
	if head < 0 || len(c.buffer) < head+len(endOfHead)+len(r.wanted) {
		return nil
	}
	r.judge(c, c.buffer[head+len(endOfHead):])
	if len(c.due) > 0 {
		return r.send(c)
	}
	return nil
}

// judge enters one answer.
func (r *run) judge(c *connection, body []byte) {
	now := r.now()
	if !bytes.HasPrefix(c.buffer, statusOK) || !bytes.Equal(body, r.wanted) {
		r.wrong++
	}
	if c.due[0] >= r.warmupEnds {
		r.latencies = append(r.latencies, now-c.due[0])
	}
	r.answered++
	r.lastAnswer = now
	c.due, c.waiting, c.buffer = c.due[1:], false, c.buffer[:0]
}

// wait sleeps until an answer comes or the next request is due.
func (r *run) wait(events []syscall.EpollEvent, now int64) (int, error) {
	pause := int64(1e8)
	if due := r.dueAt(r.next); due < r.endsAt {
		pause = max(0, due-now)
	}
	timeout := syscall.NsecToTimespec(pause)
	n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(r.epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0)
	if errno == syscall.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2 (Linux 5.11 or later): %w", errno)
	}
	return int(n), nil
}
