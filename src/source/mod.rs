//! Where the resources come from: a cluster's API server, or a folder of manifests.

pub mod cluster;
pub mod folder;
