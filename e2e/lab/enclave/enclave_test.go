package enclave_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

func TestMain(m *testing.M) { enclave.RunTests(m) }

func TestTheProgramIsProcessOneWithALoopbackOnly(t *testing.T) {
	if os.Getpid() != 1 {
		t.Errorf("process id %d, want 1", os.Getpid())
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		// Kernels with built-in tunnels create interfaces such as tunl0 and sit0 in every namespace. They are down.
		if i.Name != "lo" && i.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s is up in a namespace that nobody furnished", i.Name)
		}
	}
}

func TestTwoHostsReachEachOtherOverACable(t *testing.T) {
	hosts := [2]enclave.Host{}
	for i, name := range []string{"left", "right"} {
		h, err := enclave.NewHost(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Remove() })
		hosts[i] = h
	}
	if err := enclave.Connect(hosts[0], "eth0", hosts[1], "eth0"); err != nil {
		t.Fatal(err)
	}
	for i, address := range []string{"198.18.0.1/24", "198.18.0.2/24"} {
		if err := hosts[i].Script("ip addr add %s dev eth0", address); err != nil {
			t.Fatal(err)
		}
	}
	var server net.PacketConn
	if err := hosts[1].Do(func() (err error) {
		server, err = net.ListenPacket("udp", "198.18.0.2:9")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if out, err := hosts[0].Command(context.Background(), "bash", "-c", "echo hello > /dev/udp/198.18.0.2/9").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	buf := make([]byte, 64)
	n, from, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(buf[:n]), "hello") || !strings.HasPrefix(from.String(), "198.18.0.1:") {
		t.Errorf("got %q from %v", buf[:n], from)
	}
}
