"""vCenter behind one small asynchronous interface; nothing outside of this package imports pyVmomi.

    vcenters = VCenters()                                   # one for the process; `await vcenters.aclose()` at the end
    vc = vcenters.get(Server.parse("vc.example.com"), "namespace/secret", Credentials(user, password), Trust(...))

    await vc.check() -> About                               # signs in; raises what is wrong
    vc.inventory: datacenter(name="*"), datacenters(), cluster(dc, name), clusters(dc), hosts(cluster),
        folder(dc, name), resource_pool(dc, name, cluster=None), datastore(dc, name), network(dc, name),
        template(dc, name_or_uuid), storage_policy(name), compatible_datastores(policy, refs), names(refs), forget()
    vc.vms: find(instance_uuid=, bios_uuid=), get(ref), named(folder, name), names(folder), clone(spec) -> task Ref,
        reconfigure(ref, extra_config), power_on(ref), power_off(ref), destroy(ref) -> task Ref, shut_down_guest(ref),
        nics(ref), extra_config(ref, keys), task(ref), recent_tasks(ref)
    vc.watch: follow(ref, notify) -> stop(), last(ref), finished(task_ref) -> Task
    vc.rules: read(cluster), join(cluster, vm_group, vm), set_hosts(...), set_vms(...), set_rule(...)
    vc.tags: categories(), category(name), tags(category_id), tag(id), create_category(...), update_category(...),
        create_tag(...), attach(tag_id, ref), detach(tag_id, ref), attached(refs), objects(tag_id), delete_tag(id),
        delete_category(id)

Calls are made in a bounded pool of threads for each server and identity, each with a deadline. One session serves all
calls of an identity; it is renewed when vCenter forgot it. Errors are those of `errors`, values those of `values`.
"""
