"""VSphereMachine to a booted VM in vCenter, for clusters where Cluster API's vSphere provider does not run."""
