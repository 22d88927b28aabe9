// Command shop-stock is the example shop's inventory, a TCP service.
package main

import (
	"flag"
	"log"
	"net"

	"github.com/tulle-mesh/tulle/examples/shop/stock"
)

func main() {
	listen := flag.String("listen", ":7000", "address to listen on")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	var s stock.Store
	s.Put("apple", 1_000_000)
	s.Put("pear", 25)
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("stock on %v", ln.Addr())
	log.Fatal(s.Serve(ln, log.Printf))
}
