// A server that answers every request with its name: something to route to while the product's images are not there.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	handler := func(writer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(writer, "%s %s\n", os.Getenv("NAME"), request.URL.Path)
	}
	if err := http.ListenAndServe(":8080", http.HandlerFunc(handler)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
