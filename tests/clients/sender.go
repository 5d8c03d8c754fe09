// Clicks through Go's net/http, and says what came of it.
//
//	sender URL SHAPE CLICKS
//
// SHAPE pipe: the body comes from a pipe, so that its length is not known and it is sent in chunks
// of its own; small: of two bytes; large: of 200 KB.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

const inFlight = 8

var left, answered, connections int64

func body(shape string) io.Reader {
	switch shape {
	case "pipe":
		reader, writer := io.Pipe()
		go func() {
			fmt.Fprint(writer, "{")
			fmt.Fprint(writer, "}")
			writer.Close()
		}()
		return reader
	case "large":
		return bytes.NewReader(make([]byte, 200<<10))
	}
	return bytes.NewReader([]byte("{}"))
}

func click(client *http.Client, url, shape string) error {
	request, err := http.NewRequest("POST", url, body(shape))
	if err != nil {
		return err
	}
	trace := httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			atomic.AddInt64(&connections, 1)
		}
	}}
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &trace))
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("answered %s", answer.Status)
	}
	return nil
}

func main() {
	url, shape := os.Args[1], os.Args[2]
	sent, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	left = int64(sent)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}
	var group sync.WaitGroup
	for i := 0; i < inFlight; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for atomic.AddInt64(&left, -1) >= 0 {
				if err := click(client, url, shape); err != nil {
					fmt.Fprintln(os.Stderr, err)
				} else {
					atomic.AddInt64(&answered, 1)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf(`{"sent": %d, "answered": %d, "connections": %d}`+"\n", sent, answered, connections)
}
