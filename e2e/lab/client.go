package lab

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	eth0 = "eth0"
	// requestTimeout bounds one request. It is shorter than the second after which the kernel resends
	// a lost SYN: a request with a lost SYN fails instead of being slow.
	requestTimeout = 800 * time.Millisecond
)

// Client is a host that can send requests from its interface eth0. Nodes, routers and pods are
// clients too.
type Client struct {
	Host       enclave.Host
	IPv4, IPv6 netip.Addr
	MAC        net.HardwareAddr
	// Timeout of a request. 0 means requestTimeout.
	Timeout time.Duration
	// firstSYN makes it an error if the kernel had to resend the SYN of a connection.
	firstSYN bool

	Cable // The zero value if the client is not on the segment.
}

// Patient returns a client whose requests may take 10 s, but fail if the SYN of the connection was lost. This
// detects a lost SYN without a tight timeout, which a busy machine would exceed without packet loss.
func (c *Client) Patient() *Client {
	patient := *c
	patient.Timeout, patient.firstSYN = 10*time.Second, true
	return &patient
}

func (c *Client) timeout() time.Duration { return cmp.Or(c.Timeout, requestTimeout) }

// Reply is the answer of the app in a pod.
type Reply struct {
	// Pod and Node that answered.
	Pod  string `json:"pod"`
	Node string `json:"node"`
	// Client is the source address of the request, as the pod saw it.
	Client netip.Addr `json:"client"`
}

// Get sends a request to the app on a new connection. The target is an address with a port.
func (c *Client) Get(ctx context.Context, target string) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	conn, err := c.Dial(ctx, "tcp", target)
	if err != nil {
		return Reply{}, fmt.Errorf("from %s: GET %s: %w", c.Host.Name, target, err)
	}
	defer conn.Close()
	reply, err := exchange(ctx, conn, bufio.NewReader(conn), target, true)
	if err != nil {
		return Reply{}, fmt.Errorf("from %s: GET %s: %w", c.Host.Name, target, err)
	}
	return reply, nil
}

// exchange sends one request to the app on an open connection. It returns early when ctx ends.
func exchange(ctx context.Context, conn net.Conn, from *bufio.Reader, target string, last bool) (reply Reply, err error) {
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // The caller closes conn soon.
	defer release()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+"/", nil)
	if err != nil {
		return reply, err
	}
	request.Close = last
	if err := request.Write(conn); err != nil {
		return reply, err
	}
	response, err := http.ReadResponse(from, request)
	if err != nil {
		return reply, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply, err
	}
	if response.StatusCode != http.StatusOK {
		return reply, errors.New(response.Status)
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return reply, fmt.Errorf("not an app's answer: %w", err)
	}
	return reply, nil
}

// Eventually sends requests until accept returns nil for a reply, and returns that reply. A nil accept
// takes any reply.
func (c *Client) Eventually(ctx context.Context, target string, accept func(Reply) error) (reply Reply, err error) {
	err = Eventually(ctx, func(ctx context.Context) error {
		if reply, err = c.Get(ctx, target); err != nil || accept == nil {
			return err
		}
		return accept(reply)
	})
	return reply, err
}

// EventuallySilent sends requests until one gets no answer.
func (c *Client) EventuallySilent(ctx context.Context, target string) error {
	return Eventually(ctx, func(ctx context.Context) error {
		reply, err := c.Get(ctx, target)
		if err == nil {
			return fmt.Errorf("%s still answers %s for %s", reply.Pod, c.Host.Name, target)
		}
		return ctx.Err()
	})
}

// Dial connects from the host. The address must be numeric.
func (c *Client) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = c.Host.Do(func() error {
		// Without this timeout an http.Transport keeps dialling for a cancelled request, and each dial holds a thread.
		conn, err = (&net.Dialer{Timeout: c.timeout()}).DialContext(ctx, network, address)
		return err
	})
	if err != nil || !c.firstSYN {
		return conn, err
	}
	again, err := sentAgain(conn)
	if err == nil && again > 0 {
		err = &SentAgainError{From: conn.LocalAddr(), Times: again}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// SentAgainError means that a SYN or the answer to it was lost, or that the answer took longer than a second
// (RFC 6298, section 2.1).
type SentAgainError struct {
	From  net.Addr // The client's end of the connection.
	Times uint32
}

func (e *SentAgainError) Error() string {
	return fmt.Sprintf("the SYN from %v was sent again %d times", e.From, e.Times)
}

// sentAgain returns how many segments of a TCP connection the kernel has resent.
func sentAgain(conn net.Conn) (segments uint32, err error) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, fmt.Errorf("TCP_INFO: %w", err)
	}
	return info.Total_retrans, nil
}

// ErrNoNeighbour means that the kernel has no link-layer address for a neighbour.
var ErrNoNeighbour = errors.New("no neighbour entry")

// Neighbour returns the MAC in the host's neighbour entry for the address.
func (c *Client) Neighbour(addr netip.Addr) (net.HardwareAddr, error) {
	out, err := c.Host.Command(context.Background(), "ip", "neigh", "show", "to", addr.String(), "dev", eth0).Output()
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", c.Host.Name, err)
	}
	if _, after, ok := strings.Cut(string(out), "lladdr "); ok {
		return net.ParseMAC(strings.Fields(after)[0])
	}
	return nil, fmt.Errorf("%s for %s: %w", c.Host.Name, addr, ErrNoNeighbour)
}

// FlushNeighbour removes the host's neighbour entry for the address. The kernel resolves the address
// again for the next packet.
func (c *Client) FlushNeighbour(addr netip.Addr) error {
	return c.Host.Script("ip neigh flush to %s dev %s", addr, eth0)
}

// ClientOn returns a client on an existing host, with the host's addresses.
func ClientOn(h enclave.Host) (*Client, error) {
	c := &Client{Host: h}
	return c, h.Do(func() error {
		i, err := net.InterfaceByName(eth0)
		if err != nil {
			return fmt.Errorf("on %s: %w", h.Name, err)
		}
		c.MAC = i.HardwareAddr
		addrs, err := i.Addrs()
		if err != nil {
			return fmt.Errorf("on %s: %w", h.Name, err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			switch {
			case err != nil:
				return fmt.Errorf("on %s: %w", h.Name, err)
			case p.Addr().Is4():
				c.IPv4 = p.Addr()
			case p.Addr().IsGlobalUnicast():
				c.IPv6 = p.Addr()
			}
		}
		return nil
	})
}
