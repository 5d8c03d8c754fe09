// Command counter is the contender "Go net/http": POST /counter/{id} adds one to an atomic counter.
//
// The id is parsed from the path by hand, which is faster than any router, and the counters are
// an array, as in Clickmill. GET /total answers the sum, to check the run.
package main

import (
	"flag"
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

const prefix = "/counter/"

var (
	body        = []byte(`{"status":"counted"}`)
	contentType = []string{"application/json"}
	origin      = []string{"*"}
)

func main() {
	address := flag.String("listen", "127.0.0.1:9000", "address to listen on")
	maxID := flag.Int("max-id", 99999, "highest id that is counted")
	flag.Parse()
	counters := make([]atomic.Uint64, *maxID+1)

	mux := http.NewServeMux()
	mux.HandleFunc(prefix, func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(strings.TrimPrefix(r.URL.Path, prefix), 10, 32)
		if err != nil {
			http.Error(w, `{"code":"invalid_banner_id"}`, http.StatusBadRequest)
			return
		}
		if id >= uint64(len(counters)) {
			http.Error(w, `{"code":"unknown_banner"}`, http.StatusNotFound)
			return
		}
		counters[id].Add(1)
		header := w.Header()
		header["Content-Type"] = contentType
		header["Access-Control-Allow-Origin"] = origin
		w.Write(body)
	})
	mux.HandleFunc("/total", func(w http.ResponseWriter, r *http.Request) {
		var sum uint64
		for i := range counters {
			sum += counters[i].Load()
		}
		w.Write(strconv.AppendUint(nil, sum, 10))
	})
	log.Fatal(http.ListenAndServe(*address, mux))
}
