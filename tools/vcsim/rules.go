package main

import (
	"encoding/json"
	"fmt"
	"log"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// rule says what happens to requests or tasks. Method is a SOAP method ("CloneVM_Task"), a REST request ("POST
// /rest/com/...", any longer path included), a task's operation ("cloneVm"), or "*".
type rule struct {
	Method  string          `json:"method"`
	Type    string          `json:"type"`   // faults: type of the managed object, "*" by default
	Name    string          `json:"name"`   // faults, tasks: name of the object, "*" by default
	Fault   string          `json:"fault"`  // faults, tasks: type of the fault ("NoPermission")
	Fields  json.RawMessage `json:"fields"` // faults, tasks: its fields, named as in the SOAP schema
	Message string          `json:"message"`
	Status  int             `json:"status"` // requests: answer this HTTP status
	Body    string          `json:"body"`
	Drop    string          `json:"drop"` // requests: close the connection "before" or "after" carrying them out
	Hold    bool            `json:"hold"` // requests, tasks: wait for a release
	DelayMS int             `json:"delayMs"`
	Times   int             `json:"times"` // how often it applies; 0 for ever
	Skip    int             `json:"skip"`  // how many matches it lets pass first

	release chan struct{}
}

func (r *rule) matches(method string) bool {
	return r.Method == "*" || strings.EqualFold(r.Method, method) ||
		(strings.Contains(r.Method, " /") && strings.HasPrefix(method, r.Method))
}

// pause waits as the rule says; false when the client has gone meanwhile.
func (r *rule) pause(gone <-chan struct{}) bool {
	if r.DelayMS > 0 {
		select {
		case <-time.After(time.Duration(r.DelayMS) * time.Millisecond):
		case <-gone:
			return false
		}
	}
	if r.Hold {
		select {
		case <-r.release:
		case <-gone:
			return false
		}
	}
	return true
}

// rules is an ordered list of which the first match applies.
type rules struct {
	mu   sync.Mutex
	list []*rule
}

func (l *rules) add(r *rule) {
	r.release = make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, r)
}

func (l *rules) take(matches func(*rule) bool) *rule {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.list {
		if !matches(r) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.Times == 1 {
			// A rule that holds somebody has to stay reachable for its release; it matches nobody any more.
			spent := *r
			spent.Method = ""
			l.list[i] = &spent
			return &spent
		}
		if r.Times > 1 {
			r.Times--
		}
		return r
	}
	return nil
}

// clear forgets every rule and lets go of everything that is held.
func (l *rules) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.list {
		close(r.release)
	}
	l.list = nil
}

// fault makes the fault that a rule names.
func (r *rule) fault() (types.BaseMethodFault, error) {
	kind, known := types.TypeFunc()(r.Fault)
	if !known {
		return nil, fmt.Errorf("no type %q", r.Fault)
	}
	value := reflect.New(kind).Interface()
	if len(r.Fields) > 0 {
		if err := json.Unmarshal(r.Fields, value); err != nil {
			return nil, err
		}
	}
	fault, ok := value.(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is no fault", r.Fault)
	}
	return fault, nil
}

// taskHook hears of each task before it runs.
type taskHook struct {
	control *control
	running sync.Map // object -> the mutex of tasks that a rule has taken the simulator's own lock from
}

func (*taskHook) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "TaskHook", Value: "task-hook"}
}
func (*taskHook) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}
func (*taskHook) RemoveObject(*simulator.Context, types.ManagedObjectReference)         {}

func (h *taskHook) PutObject(_ *simulator.Context, obj mo.Reference) {
	task, ok := obj.(*simulator.Task)
	if !ok || task.Info.Entity == nil {
		return
	}
	registry := h.control.model.Map()
	entity := *task.Info.Entity
	target, _ := registry.Get(entity).(mo.Entity)
	operation := task.Info.DescriptionId[strings.LastIndex(task.Info.DescriptionId, ".")+1:]
	found := h.control.tasks.take(func(r *rule) bool {
		return r.matches(operation) && (r.Name == "" || r.Name == "*" || (target != nil && target.Entity().Name == r.Name))
	})
	if found == nil {
		return
	}
	var fault types.BaseMethodFault
	if found.Fault != "" {
		var err error
		if fault, err = found.fault(); err != nil {
			log.Print(err)
		}
	}
	// A task locks its object while it runs. One that takes its time must not: its template serves others as well.
	task.Info.Entity = &types.ManagedObjectReference{Type: "Lock", Value: fmt.Sprintf("%p", task)}
	execute := task.Execute
	task.Execute = func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		t.Info.Entity = &entity
		if target != nil && !slices.Contains(target.Entity().RecentTask, t.Self) {
			ctx := &simulator.Context{Map: registry}
			recent := append(slices.Clone(target.Entity().RecentTask), t.Self)
			registry.AtomicUpdate(ctx, target, []types.PropertyChange{{Name: "recentTask", Val: recent}})
		}
		found.pause(nil)
		if fault != nil {
			return nil, fault
		}
		mutex, _ := h.running.LoadOrStore(entity, new(sync.Mutex))
		mutex.(*sync.Mutex).Lock()
		defer mutex.(*sync.Mutex).Unlock()
		return execute(t)
	}
}
