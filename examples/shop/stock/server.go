package stock

import (
	"bufio"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Greeting is the server's first line.
const Greeting = "stock ready"

const (
	// maxLine bounds a request, so that a stranger cannot fill our memory.
	maxLine = 4 << 10
	// idleTimeout ends a conversation in which nobody speaks.
	idleTimeout = 5 * time.Minute
)

// Store is the shelf. The zero value is empty.
type Store struct {
	mu    sync.Mutex
	items map[string]int
}

// Put sets how many there are of an item.
func (s *Store) Put(item string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items == nil {
		s.items = map[string]int{}
	}
	s.items[item] = n
}

// Take removes n of an item and returns how many are left.
func (s *Store) Take(item string, n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, known := s.items[item]
	switch {
	case !known:
		return 0, fmt.Errorf("no item %q", item)
	case n < 1:
		return have, fmt.Errorf("cannot take %d", n)
	case n > have:
		return have, fmt.Errorf("only %d left", have)
	}
	s.items[item] = have - n
	return have - n, nil
}

// List is one line for each item, sorted.
func (s *Store) List() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for item, n := range s.items {
		lines = append(lines, fmt.Sprintf("%s %d", item, n))
	}
	sort.Strings(lines)
	return lines
}

// Serve answers on ln until it is closed. log is told of each order.
func (s *Store) Serve(ln net.Listener, log func(format string, args ...any)) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			s.talk(conn, log)
		}()
	}
}

func (s *Store) talk(conn net.Conn, log func(string, ...any)) {
	fmt.Fprintln(conn, Greeting)
	lines := bufio.NewReaderSize(conn, maxLine)
	for {
		conn.SetDeadline(time.Now().Add(idleTimeout))
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		answer := s.answer(strings.TrimSpace(string(line)), conn.RemoteAddr(), log)
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

func (s *Store) answer(line string, from net.Addr, log func(string, ...any)) string {
	order, why, _ := strings.Cut(line, " for ")
	words := strings.Fields(order)
	switch {
	case len(words) == 1 && words[0] == "LIST":
		return strings.Join(append(s.List(), "."), "\n")
	case len(words) == 3 && words[0] == "TAKE":
		n, err := strconv.Atoi(words[2])
		if err != nil {
			return "error how many?"
		}
		left, err := s.Take(words[1], n)
		if err != nil {
			return "error " + err.Error()
		}
		log("%d %s taken for %q, asked by %v, %d left", n, words[1], why, from, left)
		return fmt.Sprintf("ok %d", left)
	}
	return "error say LIST, or TAKE ITEM N for REASON"
}
