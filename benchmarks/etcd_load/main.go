// Closed loops against etcd, for benchmarks/etcd.py. Obeys JSON lines on its standard input, one JSON line in answer:
//
//	["open", CONNECTIONS, [ENDPOINT, …]]          waits for a leader, connects to it alone; answers with its endpoint
//	["writes", VALUE, CALLERS, SECONDS, WARM_UP]  each caller puts its own key, one put after the other
//	["reads", VALUE, CALLERS, SECONDS, WARM_UP]   linearizable gets of one key, which holds VALUE
//
// It ends with its standard input. The connections are shared by all callers, as clientv3 means them to be.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const patience = 30 * time.Second

type outcome struct {
	Count   int     `json:"count"`
	Total   int     `json:"total"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	P999    float64 `json:"p999"`
}

// connect gives a client of one endpoint, once it answers.
func connect(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: patience, Logger: zap.NewNop(),
	})
}

// leaderOf asks every endpoint until one says that it leads.
func leaderOf(endpoints []string) (string, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, endpoint := range endpoints {
			client, err := connect(endpoint)
			if err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := client.Status(ctx, endpoint)
			cancel()
			client.Close()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return endpoint, nil
			}
		}
	}
	return "", fmt.Errorf("no leader among %v within %v", endpoints, patience)
}

// run lets callers call for warmUp seconds unmeasured, and then for the given seconds.
func run(callers int, seconds, warmUp float64, call func(caller int) error) (outcome, error) {
	begin := time.Now().Add(time.Duration(warmUp * float64(time.Second)))
	end := begin.Add(time.Duration(seconds * float64(time.Second)))
	latencies := make([][]float64, callers)
	totals := make([]int, callers)
	failures := make([]error, callers)
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for start := time.Now(); start.Before(end); {
				if failures[caller] = call(caller); failures[caller] != nil {
					return
				}
				done := time.Now()
				totals[caller]++
				if !done.Before(begin) && !done.After(end) {
					latencies[caller] = append(latencies[caller], done.Sub(start).Seconds())
				}
				start = done
			}
		})
	}
	all.Wait()
	for _, failure := range failures {
		if failure != nil {
			return outcome{}, failure
		}
	}
	sorted := slices.Concat(latencies...)
	slices.Sort(sorted)
	found := outcome{Count: len(sorted), Seconds: seconds}
	for _, total := range totals {
		found.Total += total
	}
	if len(sorted) == 0 {
		return found, fmt.Errorf("no call ended within %v s", seconds)
	}
	at := func(share float64) float64 { return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)] }
	found.P50, found.P99, found.P999 = at(0.5), at(0.99), at(0.999)
	return found, nil
}

// take reads the words of a line into the given places.
func take(words []json.RawMessage, places ...any) error {
	if len(words) != len(places) {
		return fmt.Errorf("%d words where %d belong", len(words), len(places))
	}
	for i, place := range places {
		if err := json.Unmarshal(words[i], place); err != nil {
			return err
		}
	}
	return nil
}

// obey carries out one line.
func obey(line []byte, clients *[]*clientv3.Client) (any, error) {
	var words []json.RawMessage
	var verb, value string
	if err := json.Unmarshal(line, &words); err != nil {
		return nil, err
	}
	if err := take(words[:1], &verb); err != nil {
		return nil, err
	}
	if verb == "open" {
		var connections int
		var endpoints []string
		if err := take(words[1:], &connections, &endpoints); err != nil {
			return nil, err
		}
		leader, err := leaderOf(endpoints)
		for range connections {
			client, failure := connect(leader)
			if failure != nil {
				return nil, failure
			}
			*clients = append(*clients, client)
		}
		return leader, err
	}
	var callers int
	var seconds, warmUp float64
	if err := take(words[1:], &value, &callers, &seconds, &warmUp); err != nil {
		return nil, err
	}
	client := func(caller int) *clientv3.Client { return (*clients)[caller%len(*clients)] }
	switch verb {
	case "writes":
		return run(callers, seconds, warmUp, func(caller int) error {
			_, err := client(caller).Put(context.Background(), fmt.Sprintf("key%d", caller), value)
			return err
		})
	case "reads":
		if _, err := client(0).Put(context.Background(), "key0", value); err != nil {
			return nil, err
		}
		return run(callers, seconds, warmUp, func(caller int) error {
			found, err := client(caller).Get(context.Background(), "key0")
			if err == nil && (len(found.Kvs) != 1 || string(found.Kvs[0].Value) != value) {
				err = fmt.Errorf("a get gave %v", found.Kvs)
			}
			return err
		})
	}
	return nil, fmt.Errorf("not a command: %s", line)
}

// listen passes lines on. With the end of the input it ends the program: nobody waits for an answer any longer.
func listen(lines chan<- []byte) {
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		lines <- []byte(input.Text())
	}
	os.Exit(0)
}

func main() {
	lines := make(chan []byte)
	go listen(lines)
	var clients []*clientv3.Client
	for line := range lines {
		answer, err := obey(line, &clients)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}
