package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type control struct {
	model      *simulator.Model
	tls        *tls.Config
	client     *vim25.Client
	soap       rules // requests
	tasks      rules
	address    string
	collectors sync.Map

	mu       sync.Mutex
	server   *http.Server
	users    map[string]string
	calls    map[string]int
	inFlight int
	peak     int
	open     map[net.Conn]bool
	peakOpen int
	tokens   map[string]bool // REST sessions seen; false once they have expired
}

func newControl(model *simulator.Model, config *tls.Config) *control {
	client, err := vim25.NewClient(context.Background(), model.Service)
	if err != nil {
		log.Fatal(err)
	}
	c := &control{
		model: model, tls: config, client: client,
		users: map[string]string{}, calls: map[string]int{}, open: map[net.Conn]bool{}, tokens: map[string]bool{},
	}
	model.Map().AddHandler(&taskHook{control: c})
	model.Map().Handler = c.install
	return c
}

func (c *control) validLogin(login *types.Login) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	password, known := c.users[login.UserName]
	return known && password == login.Password
}

// up starts to serve; an empty address stands for the one it had.
func (c *control) up(address string) error {
	if address == "" {
		address = c.address
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	c.address = listener.Addr().String()
	server := &http.Server{
		Handler:   c,
		ConnState: c.connection,
		ErrorLog:  log.New(io.Discard, "", 0), // handshakes that tests break on purpose
	}
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	config := c.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	go func() {
		if err := server.Serve(tls.NewListener(listener, config)); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	return nil
}

// down closes every connection and the port.
func (c *control) down() {
	c.mu.Lock()
	server := c.server
	c.mu.Unlock()
	_ = server.Close()
}

func (c *control) connection(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.open[conn] = true
		c.peakOpen = max(c.peakOpen, len(c.open))
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

var soapMethod = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)

const restSession = "vmware-api-session-id"

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method := r.Method + " " + r.URL.RequestURI()
	if found := soapMethod.FindSubmatch(body); found != nil {
		method = string(found[1])
	}
	c.mu.Lock()
	c.calls[method]++
	c.inFlight++
	c.peak = max(c.peak, c.inFlight)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.inFlight--
		c.mu.Unlock()
	}()

	if c.expired(r.Header.Get(restSession)) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"type":"com.vmware.vapi.std.errors.unauthenticated","value":{"messages":[]}}`)
		return
	}
	found := c.soap.take(func(r *rule) bool { return r.matches(method) })
	if found == nil {
		c.model.Service.ServeMux.ServeHTTP(w, r)
		return
	}
	if !found.pause(r.Context().Done()) || found.Drop == "before" {
		panic(http.ErrAbortHandler)
	}
	switch {
	case found.Drop == "after":
		c.model.Service.ServeMux.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case found.Status != 0:
		w.WriteHeader(found.Status)
		fmt.Fprint(w, found.Body)
	default:
		c.model.Service.ServeMux.ServeHTTP(w, r)
	}
}

func (c *control) expired(token string) bool {
	if token == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	alive, seen := c.tokens[token]
	c.tokens[token] = alive || !seen
	return seen && !alive
}

// expire makes vCenter forget every session, of SOAP and of REST.
func (c *control) expire(ctx context.Context) error {
	c.mu.Lock()
	for token := range c.tokens {
		c.tokens[token] = false
	}
	c.mu.Unlock()
	ids, err := c.sessions(ctx)
	if err != nil || len(ids) == 0 {
		return err
	}
	err = session.NewManager(c.client).TerminateSession(ctx, ids)
	c.collectors.Range(func(key, _ any) bool {
		key.(*collector).stop(errNobody)
		c.collectors.Delete(key)
		return true
	})
	return err
}

func (c *control) sessions(ctx context.Context) ([]string, error) {
	var manager mo.SessionManager
	reference := *c.client.ServiceContent.SessionManager
	err := property.DefaultCollector(c.client).RetrieveOne(ctx, reference, []string{"sessionList"}, &manager)
	var ids []string
	for _, s := range manager.SessionList {
		ids = append(ids, s.Key)
	}
	return ids, err
}
