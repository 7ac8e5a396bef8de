// Answers each request with its pid, over kept connections or not; /compute after 200 ms of work. With REUSEPORT set, it
// listens with SO_REUSEPORT.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// Not among the constants of syscall.
const reuseport = 15

func main() {
	config := net.ListenConfig{}
	if os.Getenv("REUSEPORT") != "" {
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			outer := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reuseport, 1)
			})
			if outer != nil {
				return outer
			}
			return err
		}
	}
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	answer := []byte(fmt.Sprintf("%d\n", os.Getpid()))
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/compute" {
			for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
			}
		}
		to.Write(answer)
	})))
}
