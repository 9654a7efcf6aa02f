// Command vcsim simulates a vCenter for tests: SOAP on /sdk and the REST API of tags on /rest and /api.
//
// It prints the URL of its SDK on stdout once it serves, and ends on SIGINT or SIGTERM. The inventory is what the flags
// ask for; its names follow govmomi's simulator (DC0, DC0_C0, LocalDS_0, ...). Any user and password are accepted.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
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
	flag.IntVar(&model.Datacenter, "dc", model.Datacenter, "number of datacenters")
	flag.IntVar(&model.Cluster, "cluster", model.Cluster, "number of clusters in each datacenter")
	flag.IntVar(&model.ClusterHost, "host", model.ClusterHost, "number of hosts in each cluster")
	flag.IntVar(&model.Datastore, "ds", model.Datastore, "number of datastores")
	flag.IntVar(&model.Portgroup, "pg", model.Portgroup, "number of distributed port groups in each datacenter")
	flag.IntVar(&model.Machine, "vm", model.Machine, "number of virtual machines in each resource pool")
	flag.BoolVar(&model.Autostart, "autostart", model.Autostart, "power the virtual machines on")
	flag.Parse()

	defer model.Remove()
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: *listen}
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	defer server.Close()
	fmt.Printf("https://%s%s\n", server.URL.Host, server.URL.Path)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
}
