// Command vcsim simulates a vCenter for tests: SOAP on /sdk, storage policies on /pbm, the REST API of tags on /rest.
//
// It prints the URL of its SDK on stdout once it serves (and, with -control, the URL of the control endpoint on a second
// line), and ends on SIGINT or SIGTERM. The inventory is what the flags ask for; its names follow govmomi's simulator
// (DC0, DC0_C0, LocalDS_0, ...). Any user and password are accepted unless -user is given.
//
// The simulator itself answers promptly and never fails. Tests need the opposite, so requests pass through a front that
// counts, delays, drops and refuses them, and tasks through a hook that holds or fails them. The control endpoint
// (plain HTTP, JSON) steers both; control.handler lists what it offers. A restart is that of vCenter: connections and
// sessions are gone, the inventory stays. One part of the simulator is replaced: the waiting for updates (collector).
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/vmware/govmomi/simulator"

	// Each registers its endpoints when it is imported.
	_ "github.com/vmware/govmomi/lookup/simulator"
	_ "github.com/vmware/govmomi/pbm/simulator"
	_ "github.com/vmware/govmomi/sts/simulator"
	_ "github.com/vmware/govmomi/vapi/cluster/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
)

func main() {
	model := simulator.VPX()
	listen := flag.String("l", "127.0.0.1:0", "listen address; port 0 takes a free one")
	controlListen := flag.String("control", "", "listen address of the control endpoint; none without")
	user := flag.String("user", "", "the only user that may sign in; any when empty")
	password := flag.String("password", "", "the password of -user")
	certificate := flag.String("cert", "", "file with the certificate in PEM; one of Go's own tests when empty")
	key := flag.String("key", "", "file with the key of -cert")
	flag.IntVar(&model.Datacenter, "dc", model.Datacenter, "number of datacenters")
	flag.IntVar(&model.Cluster, "cluster", model.Cluster, "number of clusters in each datacenter")
	flag.IntVar(&model.ClusterHost, "host", model.ClusterHost, "number of hosts in each cluster")
	flag.IntVar(&model.Host, "standalone-host", model.Host, "number of hosts without a cluster in each datacenter")
	flag.IntVar(&model.Pool, "pool", model.Pool, "number of resource pools in each cluster")
	flag.IntVar(&model.Datastore, "ds", model.Datastore, "number of datastores")
	flag.IntVar(&model.Portgroup, "pg", model.Portgroup, "number of distributed port groups in each datacenter")
	flag.IntVar(&model.OpaqueNetwork, "nsx", model.OpaqueNetwork, "number of opaque networks in each datacenter")
	flag.IntVar(&model.Machine, "vm", model.Machine, "number of virtual machines in each resource pool")
	flag.BoolVar(&model.Autostart, "autostart", model.Autostart, "power the virtual machines on")
	flag.Parse()

	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()

	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0"}
	if *user != "" {
		model.Service.Listen.User = url.UserPassword(*user, *password)
	}
	model.Service.TLS = new(tls.Config)
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		model.Service.TLS.Certificates = []tls.Certificate{pair}
	}
	// Its own listener is used by nobody: the front must be able to go down and come back on one port.
	inner := model.Service.NewServer()

	c := newControl(model, inner.TLS)
	if *user != "" {
		c.users[*user] = *password
		model.Map().SessionManager().ValidLogin = c.validLogin
	}
	if err := c.up(*listen); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("https://%s%s\n", c.address, inner.URL.Path)
	if *controlListen != "" {
		listener, err := net.Listen("tcp", *controlListen)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("http://%s\n", listener.Addr())
		go func() { log.Fatal(http.Serve(listener, c.handler())) }()
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	// Not inner.Close: it waits for every open long poll.
	c.down()
}
