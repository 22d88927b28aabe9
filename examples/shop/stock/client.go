package stock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Client talks to a store.
type Client struct {
	conn  net.Conn
	lines *bufio.Reader
}

// Dial connects and waits for the greeting; ctx bounds that.
func Dial(ctx context.Context, address string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, lines: bufio.NewReader(conn)}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	line, err := c.line()
	if err == nil && line != Greeting {
		err = fmt.Errorf("stock at %s: unexpected greeting %q", address, line)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return c, nil
}

// Close ends the conversation.
func (c *Client) Close() error { return c.conn.Close() }

// List returns the lines of the shelf, such as "apple 40".
func (c *Client) List() ([]string, error) {
	if _, err := fmt.Fprintln(c.conn, "LIST"); err != nil {
		return nil, err
	}
	var items []string
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		if line == "." {
			return items, nil
		}
		items = append(items, line)
	}
}

// ErrRefused is wrapped by answers of the store that are not "ok".
var ErrRefused = errors.New("refused")

// Take takes n of an item and returns how many are left.
func (c *Client) Take(item string, n int, why string) (left int, err error) {
	why = strings.Join(strings.Fields(why), " ") // one line
	if _, err := fmt.Fprintf(c.conn, "TAKE %s %d for %s\n", item, n, why); err != nil {
		return 0, err
	}
	line, err := c.line()
	if err != nil {
		return 0, err
	}
	rest, ok := strings.CutPrefix(line, "ok ")
	if !ok {
		return 0, fmt.Errorf("stock: %w: %s", ErrRefused, strings.TrimPrefix(line, "error "))
	}
	return strconv.Atoi(rest)
}

func (c *Client) line() (string, error) {
	line, err := c.lines.ReadString('\n')
	return strings.TrimSpace(line), err
}
