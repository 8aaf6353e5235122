// The peer for scrapes: Go's client_golang with its promhttp, both as they come. client_golang ADDRESS SERIES
//
// GET /metrics exposes SERIES series (rounded down a little), the same lines as bench/ours/series.rs does. All numbers
// below count from 0.
//
//   - A third are gauges, help "Jobs by number.": bench_jobs{number="N"}, with value N.
//   - A third are counters, help "Requests by route.":
//     bench_requests_total{method="GET",route="/api/items/N",status="200"}, with value N.
//   - A third belong to histograms, help "Durations by route.": bench_duration_seconds{route="/api/items/N"}, with the
//     ten buckets below. With +Inf, sum and count a child has 13 series, so there are SERIES/3/13 of them. Each saw the
//     four durations of observations(N), in this order.
//
// GET /health answers 200; how long it takes beside scrapes is measured too.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: client_golang ADDRESS SERIES")
	}
	series, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	// No options: gzip where the client accepts it, else plain text.
	http.Handle("GET /metrics", promhttp.HandlerFor(registry(series), promhttp.HandlerOpts{}))
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}

// registry has the series, and not those of Go and the process, which the other side has not either.
func registry(series int) *prometheus.Registry {
	third := series / 3
	jobs := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "bench_jobs",
		Help: "Jobs by number.",
	}, []string{"number"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bench_requests_total",
		Help: "Requests by route.",
	}, []string{"method", "route", "status"})
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "bench_duration_seconds",
		Help:    "Durations by route.",
		Buckets: buckets,
	}, []string{"route"})

	for n := range third {
		jobs.WithLabelValues(strconv.Itoa(n)).Set(float64(n))
		requests.WithLabelValues("GET", route(n), "200").Add(float64(n))
	}
	for n := range third / (len(buckets) + 3) {
		duration := durations.WithLabelValues(route(n))
		for _, seconds := range observations(n) {
			duration.Observe(seconds)
		}
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(jobs, requests, durations)
	return registry
}

func route(n int) string {
	return fmt.Sprintf("/api/items/%d", n)
}

// observations are seconds from 0.001 to 7, over all buckets: (37·i·(n+1) mod 7000 + 1) / 1000 for i from 1 to 4.
func observations(n int) [4]float64 {
	var seconds [4]float64
	for i := range seconds {
		seconds[i] = float64(37*(i+1)*(n+1)%7000+1) / 1000
	}
	return seconds
}
