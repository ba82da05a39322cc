//! Sources of resources: a cluster's API server, or a folder of manifests. Both emit their observations as
//! [`ResourceEvent`]s.

pub(crate) mod cluster;
mod event;
pub(crate) mod folder;
mod shared;

pub(crate) use event::{Absence, Observed, ResourceEvent};
pub(crate) use shared::SharedWatch;
