// Command loader sends requests at a fixed rate and measures each answer from the moment at which
// its request was due, not from when it could be sent: a server that stalls for 10 ms then shows
// all the requests that it kept waiting, which a loader that waits with it hides.
//
// One thread, one epoll, raw non-blocking sockets; request number i goes out on connection
// i mod N at start + i/rate. Every answer is compared with the body expected. Linux only.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Report is what is printed on standard output, as JSON; times are in microseconds.
type Report struct {
	Rate     float64 `json:"rate"`     // asked for, requests a second
	Achieved float64 `json:"achieved"` // answers a second
	Sent     int     `json:"sent"`
	Answered int     `json:"answered"`
	Wrong    int     `json:"wrong"`  // answers other than 200 with the body expected
	Broken   int     `json:"broken"` // connections that broke; the run stops at the first
	P50      float64 `json:"p50_us"`
	P90      float64 `json:"p90_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
	Max      float64 `json:"max_us"`
	SendP99  float64 `json:"send_late_p99_us"` // how late the loader itself was
	SendP999 float64 `json:"send_late_p999_us"`
}

// options are the command line.
type options struct {
	port, connections, firstID, lastID int
	rate                               float64
	seconds, warmup                    float64
	body                               string
}

// readOptions parses the command line; the target is always on this machine.
func readOptions() options {
	var o options
	flag.IntVar(&o.port, "port", 8080, "port on 127.0.0.1")
	flag.IntVar(&o.connections, "connections", 64, "connections")
	flag.IntVar(&o.firstID, "first-id", 10, "lowest id")
	flag.IntVar(&o.lastID, "last-id", 100, "highest id")
	flag.Float64Var(&o.rate, "rate", 1000, "requests a second")
	flag.Float64Var(&o.seconds, "seconds", 5, "length of the measured run")
	flag.Float64Var(&o.warmup, "warmup", 1, "seconds before it that are sent but not measured")
	flag.StringVar(&o.body, "body", `{"status":"counted"}`, "body of every answer")
	flag.Parse()
	return o
}

func main() {
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	o := readOptions()
	run, err := newRun(o)
	if err == nil {
		err = run.loop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(run.report())
	if run.wrong > 0 || run.broken > 0 {
		os.Exit(1)
	}
}

// requests makes one request for each of up to maxPrepared ids, in random order.
func requests(o options) [][]byte {
	const maxPrepared = 1 << 16
	count := min(o.lastID-o.firstID+1, maxPrepared)
	all := make([][]byte, count)
	for i, offset := range rand.Perm(o.lastID - o.firstID + 1)[:count] {
		all[i] = fmt.Appendf(nil,
			"POST /counter/%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 0\r\n\r\n",
			o.firstID+offset, o.port)
	}
	return all
}

// connect opens one non-blocking connection.
func connect(port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	address := &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Connect(fd, address); err != nil {
		return 0, fmt.Errorf("connect to 127.0.0.1:%d: %w", port, err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return 0, err
	}
	return fd, syscall.SetNonblock(fd, true)
}

// quantile returns the q-quantile of sorted nanoseconds, in microseconds.
func quantile(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / 1e3
}

// report sums the run up.
func (r *run) report() Report {
	slices.Sort(r.latencies)
	slices.Sort(r.lateness)
	return Report{
		Rate: r.o.rate, Sent: r.sent, Answered: r.answered, Wrong: r.wrong, Broken: r.broken,
		Achieved: float64(r.answered) / time.Duration(r.lastAnswer).Seconds(),
		P50:      quantile(r.latencies, 0.50),
		P90:      quantile(r.latencies, 0.90),
		P99:      quantile(r.latencies, 0.99),
		P999:     quantile(r.latencies, 0.999),
		Max:      quantile(r.latencies, 1),
		SendP99:  quantile(r.lateness, 0.99),
		SendP999: quantile(r.lateness, 0.999),
	}
}
