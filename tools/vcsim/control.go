package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// handler serves the control endpoint: bodies and answers are JSON, errors are status 400 with a text.
func (c *control) handler() http.Handler {
	mux := http.NewServeMux()
	offer := func(pattern string, do func(context.Context, []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			answer, err := do(r.Context(), body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	offer("GET /stats", func(ctx context.Context, _ []byte) (any, error) { return c.stats(ctx) })
	offer("DELETE /stats", func(context.Context, []byte) (any, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls, c.peak, c.peakOpen = map[string]int{}, c.inFlight, len(c.open)
		return nil, nil
	})
	offer("POST /down", func(ctx context.Context, _ []byte) (any, error) { c.down(); return nil, c.expire(ctx) })
	offer("POST /up", func(context.Context, []byte) (any, error) { return nil, c.up("") })
	offer("POST /expire", func(ctx context.Context, _ []byte) (any, error) { return nil, c.expire(ctx) })
	offer("POST /users", func(_ context.Context, body []byte) (any, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.users = map[string]string{}
		c.model.Map().SessionManager().ValidLogin = c.validLogin
		return nil, json.Unmarshal(body, &c.users)
	})
	// Requests: delay, hold, drop, or another HTTP status.
	offer("POST /requests", func(_ context.Context, body []byte) (any, error) { return nil, added(&c.soap, body) })
	// Tasks: delay, hold, fail.
	offer("POST /tasks", func(_ context.Context, body []byte) (any, error) { return nil, added(&c.tasks, body) })
	// Calls that vCenter answers with a fault.
	offer("POST /faults", func(_ context.Context, body []byte) (any, error) {
		r := rule{Type: "*", Name: "*"}
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		fault, err := r.fault()
		if err != nil {
			return nil, err
		}
		c.model.Service.AddFaultRule(&simulator.FaultInjectionRule{
			MethodName: r.Method, ObjectType: r.Type, ObjectName: r.Name, Probability: 1, Enabled: true,
			FaultType: simulator.FaultTypeCustom, Fault: fault, Message: r.Message, MaxCount: r.Times, SkipCount: r.Skip,
		})
		return nil, nil
	})
	offer("DELETE /rules", func(context.Context, []byte) (any, error) {
		c.model.Service.ClearFaultRules()
		c.soap.clear()
		c.tasks.clear()
		return nil, nil
	})
	offer("GET /vms", func(_ context.Context, body []byte) (any, error) { return c.vms(body) })
	offer("GET /runs", func(context.Context, []byte) (any, error) { return c.runs(), nil })
	offer("POST /vms", func(ctx context.Context, body []byte) (any, error) { return nil, c.change(ctx, body) })
	offer("POST /guest", func(_ context.Context, body []byte) (any, error) { return nil, c.guest(body) })
	return mux
}

func added(list *rules, body []byte) error {
	r := new(rule)
	if err := json.Unmarshal(body, r); err != nil {
		return err
	}
	if r.Fault != "" {
		if _, err := r.fault(); err != nil {
			return err
		}
	}
	list.add(r)
	return nil
}

func (c *control) stats(ctx context.Context) (any, error) {
	ids, err := c.sessions(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := map[string]int{}
	for method, n := range c.calls {
		calls[method] = n
	}
	return map[string]any{
		"calls": calls, "inFlight": c.inFlight, "peakInFlight": c.peak,
		"connections": len(c.open), "peakConnections": c.peakOpen, "sessions": len(ids),
	}, err
}

func (c *control) find(name string) (*simulator.VirtualMachine, error) {
	for _, entity := range c.model.Map().All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if name == vm.Name || name == vm.Self.Value || name == vm.Config.InstanceUuid {
			return vm, nil
		}
	}
	return nil, fmt.Errorf("no VM %q", name)
}

// each calls a function with every VM, one at a time and locked.
func (c *control) each(do func(*simulator.VirtualMachine)) {
	registry := c.model.Map()
	for _, entity := range registry.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		registry.WithLock(&simulator.Context{Map: registry}, vm, func() { do(vm) })
	}
}

// runs tells of every VM whether it runs, and whether it was told anything: what is asked all the time.
func (c *control) runs() []map[string]any {
	found := []map[string]any{}
	c.each(func(vm *simulator.VirtualMachine) {
		told := slices.ContainsFunc(vm.Config.ExtraConfig, func(option types.BaseOptionValue) bool {
			return option.GetOptionValue().Key == "guestinfo.metadata"
		})
		found = append(found, map[string]any{
			"id": vm.Self.Value, "name": vm.Name, "power": vm.Runtime.PowerState, "told": told,
		})
	})
	return found
}

// vms describes every VM as tests want to see it, or the one that is asked for.
func (c *control) vms(body []byte) ([]map[string]any, error) {
	described := []map[string]any{}
	if len(body) == 0 {
		c.each(func(vm *simulator.VirtualMachine) { described = append(described, c.described(vm)) })
		return described, nil
	}
	var wanted struct{ VM string }
	if err := json.Unmarshal(body, &wanted); err != nil {
		return nil, err
	}
	vm, err := c.find(wanted.VM)
	if err != nil {
		return nil, err
	}
	registry := c.model.Map()
	registry.WithLock(&simulator.Context{Map: registry}, vm, func() { described = append(described, c.described(vm)) })
	return described, nil
}

func (c *control) described(vm *simulator.VirtualMachine) map[string]any {
	registry := c.model.Map()
	name := func(reference *types.ManagedObjectReference) string {
		if reference == nil {
			return ""
		}
		if entity, ok := registry.Get(*reference).(mo.Entity); ok {
			return entity.Entity().Name
		}
		return reference.Value
	}
	config := map[string]string{}
	for _, option := range vm.Config.ExtraConfig {
		config[option.GetOptionValue().Key] = fmt.Sprint(option.GetOptionValue().Value)
	}
	nics, disks := []map[string]any{}, []int64{}
	for _, device := range vm.Config.Hardware.Device {
		switch d := device.(type) {
		case types.BaseVirtualEthernetCard:
			card := d.GetVirtualEthernetCard()
			network := ""
			switch b := card.Backing.(type) {
			case *types.VirtualEthernetCardNetworkBackingInfo:
				network = b.DeviceName
			case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
				network = name(&types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey})
			case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
				network = b.OpaqueNetworkId
			}
			nics = append(nics, map[string]any{"key": card.Key, "mac": card.MacAddress, "network": network})
		case *types.VirtualDisk:
			disks = append(disks, d.CapacityInKB>>20)
		}
	}
	addresses := map[string][]string{}
	for _, nic := range vm.Guest.Net {
		addresses[nic.MacAddress] = append(addresses[nic.MacAddress], nic.IpAddress...)
	}
	datastores := []string{}
	for i := range vm.Datastore {
		datastores = append(datastores, name(&vm.Datastore[i]))
	}
	return map[string]any{
		"id": vm.Self.Value, "name": vm.Name, "power": vm.Runtime.PowerState, "template": vm.Config.Template,
		"instanceUuid": vm.Config.InstanceUuid, "uuid": vm.Config.Uuid, "folder": name(vm.Parent),
		"pool": name(vm.ResourcePool), "host": name(vm.Runtime.Host), "datastores": datastores,
		"cpus": vm.Config.Hardware.NumCPU, "memoryMiB": vm.Config.Hardware.MemoryMB, "disksGiB": disks,
		"nics": nics, "extraConfig": config, "addresses": addresses, "hostName": vm.Guest.HostName,
		"annotation": vm.Config.Annotation,
	}
}

// change does to a VM what somebody else might do behind the controller's back.
func (c *control) change(ctx context.Context, body []byte) error {
	var wanted struct{ VM, Do, Name string }
	if err := json.Unmarshal(body, &wanted); err != nil {
		return err
	}
	found, err := c.find(wanted.VM)
	if err != nil {
		return err
	}
	vm := object.NewVirtualMachine(c.client, found.Self)
	var task *object.Task
	switch wanted.Do {
	case "powerOn":
		task, err = vm.PowerOn(ctx)
	case "powerOff":
		task, err = vm.PowerOff(ctx)
	case "destroy":
		task, err = vm.Destroy(ctx)
	case "rename":
		task, err = vm.Rename(ctx, wanted.Name)
	case "snapshot":
		task, err = vm.CreateSnapshot(ctx, wanted.Name, "", false, false)
	case "template":
		return vm.MarkAsTemplate(ctx)
	default:
		return fmt.Errorf("cannot %q", wanted.Do)
	}
	if err != nil {
		return err
	}
	return task.Wait(ctx)
}

// guest makes VMware Tools report addresses by MAC, a host name and their own state; what is absent stays.
func (c *control) guest(body []byte) error {
	var report struct {
		VM        string
		Addresses map[string][]string
		HostName  *string
		Tools     string
	}
	if err := json.Unmarshal(body, &report); err != nil {
		return err
	}
	vm, err := c.find(report.VM)
	if err != nil {
		return err
	}
	registry := c.model.Map()
	ctx := &simulator.Context{Map: registry}
	registry.WithLock(ctx, vm, func() {
		var changes []types.PropertyChange
		if report.Addresses != nil {
			nics := slices.Clone(vm.Guest.Net)
			for mac, addresses := range report.Addresses {
				at := slices.IndexFunc(nics, func(nic types.GuestNicInfo) bool { return strings.EqualFold(nic.MacAddress, mac) })
				if at < 0 { // no card of the VM: an interface that the guest alone has
					nics, at = append(nics, types.GuestNicInfo{MacAddress: mac, DeviceConfigId: -1}), len(nics)
				}
				nics[at].IpAddress, nics[at].IpConfig, nics[at].Connected = addresses, nil, true
			}
			changes = append(changes, types.PropertyChange{Name: "guest.net", Val: nics})
		}
		if report.HostName != nil {
			changes = append(changes, types.PropertyChange{Name: "guest.hostName", Val: *report.HostName})
		}
		if report.Tools != "" {
			changes = append(changes, types.PropertyChange{Name: "guest.toolsRunningStatus", Val: report.Tools})
		}
		registry.Update(ctx, vm, changes)
	})
	return nil
}
