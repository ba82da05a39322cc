//! Sources of resources: a cluster's API server, or a folder of manifests. Both emit their observations as
//! [`ResourceEvent`]s.

pub mod cluster;
mod event;
pub mod folder;
mod shared;

pub use event::{Absence, Observed, ResourceEvent};
pub use shared::SharedWatch;
