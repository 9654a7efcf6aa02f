package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector answers WaitForUpdatesEx by what its filters see now against what it has told before.
//
// The simulator's own walks every followed object once for each change of anything, which takes minutes for two hundred
// VMs, enters all objects again whenever a list view changes, and drops the departure of an object that falls together
// with that. vCenter does none of it.
type collector struct {
	*simulator.PropertyCollector

	changed chan struct{}
	mu      sync.Mutex
	version int
	told    map[types.ManagedObjectReference]map[types.ManagedObjectReference]map[string]any // filter, object, property
	end     context.CancelCauseFunc                                                          // of the wait that goes on
}

const (
	pageSize   = 100                   // objects in one answer, as vCenter has it
	accumulate = 20 * time.Millisecond // changes seldom come alone
)

var (
	errCanceled = errors.New("CancelWaitForUpdates")
	errNobody   = errors.New("the session has ended")
)

// install replaces a session's property collectors as soon as they are given a filter or waited for.
func (c *control) install(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil || (method.Name != "CreateFilter" && method.Name != "WaitForUpdatesEx") {
		return nil, nil
	}
	if original, ok := ctx.Session.Get(method.This).(*simulator.PropertyCollector); ok {
		replacement := &collector{PropertyCollector: original, changed: make(chan struct{}, 1)}
		ctx.Session.Put(replacement)
		ctx.Map.AddHandler(replacement)
		c.collectors.Store(replacement, true)
	}
	return nil, nil
}

func (c *collector) PutObject(*simulator.Context, mo.Reference) { c.notice() }
func (c *collector) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {
	c.notice()
}
func (c *collector) RemoveObject(*simulator.Context, types.ManagedObjectReference) { c.notice() }

func (c *collector) notice() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *collector) CreateFilter(ctx *simulator.Context, r *types.CreateFilter) soap.HasFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.notice()
	return c.PropertyCollector.CreateFilter(ctx, r)
}

func (c *collector) CancelWaitForUpdates(*types.CancelWaitForUpdates) soap.HasFault {
	c.stop(errCanceled)
	return &methods.CancelWaitForUpdatesBody{Res: new(types.CancelWaitForUpdatesResponse)}
}

func (c *collector) DestroyPropertyCollector(ctx *simulator.Context, r *types.DestroyPropertyCollector) soap.HasFault {
	c.stop(errCanceled)
	ctx.Map.RemoveHandler(c)
	return c.PropertyCollector.DestroyPropertyCollector(ctx, r)
}

func (c *collector) stop(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		c.end(why)
	}
}

func (c *collector) WaitForUpdatesEx(ctx *simulator.Context, r *types.WaitForUpdatesEx) soap.HasFault {
	body := new(methods.WaitForUpdatesExBody)
	wait, end := context.WithCancelCause(context.Background())
	defer end(nil)
	if r.Options != nil && r.Options.MaxWaitSeconds != nil {
		limited, release := context.WithTimeout(wait, time.Duration(*r.Options.MaxWaitSeconds)*time.Second)
		defer release()
		wait = limited
	}
	c.mu.Lock()
	c.end = end
	if r.Version == "" {
		c.told = map[types.ManagedObjectReference]map[types.ManagedObjectReference]map[string]any{}
	} else if r.Version != fmt.Sprint(c.version) {
		c.mu.Unlock()
		body.Fault_ = simulator.Fault("", new(types.InvalidCollectorVersion))
		return body
	}
	c.mu.Unlock()
	for {
		if set := c.differences(ctx); set != nil {
			body.Res = &types.WaitForUpdatesExResponse{Returnval: set}
			return body
		}
		select {
		case <-c.changed:
			time.Sleep(accumulate)
		case <-wait.Done():
			switch context.Cause(wait) {
			case errCanceled:
				body.Fault_ = simulator.Fault("", new(types.RequestCanceled))
			case errNobody:
				body.Fault_ = simulator.Fault("", new(types.NotAuthenticated))
			default:
				body.Res = new(types.WaitForUpdatesExResponse)
			}
			return body
		}
	}
}

// differences returns at most a page of what is not told yet, and counts it as told; nil when there is nothing.
func (c *collector) differences(ctx *simulator.Context) *types.UpdateSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	set, room := new(types.UpdateSet), pageSize
	for _, reference := range c.Filter {
		filter, ok := ctx.Session.Get(reference).(*simulator.PropertyFilter)
		if !ok {
			continue
		}
		told := c.told[reference]
		if told == nil {
			told = map[types.ManagedObjectReference]map[string]any{}
			c.told[reference] = told
		}
		update := types.PropertyFilterUpdate{Filter: reference}
		add := func(change types.ObjectUpdate) bool {
			if room == 0 {
				set.Truncated = types.NewBool(true)
				return false
			}
			room--
			update.ObjectSet = append(update.ObjectSet, change)
			return true
		}
		present := map[types.ManagedObjectReference]bool{}
		for _, object := range c.see(ctx, filter) {
			now := map[string]any{}
			for _, property := range object.PropSet {
				now[property.Name] = property.Val
			}
			present[object.Obj] = true
			before, known := told[object.Obj]
			change := types.ObjectUpdate{Obj: object.Obj, Kind: types.ObjectUpdateKindEnter, ChangeSet: changes(before, now)}
			if known {
				change.Kind = types.ObjectUpdateKindModify
			}
			if known && len(change.ChangeSet) == 0 {
				continue
			}
			if add(change) {
				told[object.Obj] = now
			}
		}
		for object := range told {
			if !present[object] && add(types.ObjectUpdate{Obj: object, Kind: types.ObjectUpdateKindLeave}) {
				delete(told, object)
			}
		}
		if len(update.ObjectSet) > 0 {
			set.FilterSet = append(set.FilterSet, update)
		}
	}
	if len(set.FilterSet) == 0 {
		return nil
	}
	c.version++
	set.Version = fmt.Sprint(c.version)
	return set
}

func (c *collector) see(ctx *simulator.Context, filter *simulator.PropertyFilter) []types.ObjectContent {
	answer := c.PropertyCollector.RetrievePropertiesEx(ctx, &types.RetrievePropertiesEx{
		SpecSet: []types.PropertyFilterSpec{filter.Spec},
	})
	found, ok := answer.(*methods.RetrievePropertiesExBody)
	if !ok || found.Res == nil || found.Res.Returnval == nil {
		return nil
	}
	return found.Res.Returnval.Objects
}

func changes(before, now map[string]any) []types.PropertyChange {
	var found []types.PropertyChange
	for name, value := range now {
		if old, known := before[name]; !known || !reflect.DeepEqual(old, value) {
			found = append(found, types.PropertyChange{Name: name, Op: types.PropertyChangeOpAssign, Val: value})
		}
	}
	for name := range before {
		if _, set := now[name]; !set {
			found = append(found, types.PropertyChange{Name: name, Op: types.PropertyChangeOpAssign})
		}
	}
	return found
}
