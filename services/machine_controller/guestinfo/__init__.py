"""What a VM is told at its first boot, through `guestinfo.*` keys of its extraConfig.

Reading order: `network` (devices to cloud-init's network config), `metadata`, `userdata` (bootstrap data as it is),
`vendordata` (what we add for cloud-init) and `ignition` (the same for Ignition), `encode` (keys and size limits),
`extraconfig` (all of it, beside the user's own keys).
Source: cloud-init's DataSourceVMware, Ignition's VMware provider. All of it is pure.
"""
