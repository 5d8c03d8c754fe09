// Command gincounter is the contender "gin": the same counter behind gin's router, in release
// mode, without its logger, as one would run it.
package main

import (
	"flag"
	"log"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

var body = []byte(`{"status":"counted"}`)

func main() {
	address := flag.String("listen", "127.0.0.1:9000", "address to listen on")
	maxID := flag.Int("max-id", 99999, "highest id that is counted")
	flag.Parse()
	counters := make([]atomic.Uint64, *maxID+1)

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery())
	router.POST("/counter/:id", func(c *gin.Context) {
		id, err := strconv.ParseUint(c.Param("id"), 10, 32)
		if err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"code": "invalid_banner_id"})
			return
		}
		if id >= uint64(len(counters)) {
			c.JSON(http.StatusNotFound, gin.H{"code": "unknown_banner"})
			return
		}
		counters[id].Add(1)
		c.Header("Access-Control-Allow-Origin", "*")
		c.Data(http.StatusOK, "application/json", body)
	})
	router.GET("/total", func(c *gin.Context) {
		var sum uint64
		for i := range counters {
			sum += counters[i].Load()
		}
		c.String(http.StatusOK, strconv.FormatUint(sum, 10))
	})
	log.Fatal(router.Run(*address))
}
