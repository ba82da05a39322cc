//! Where the resources come from: a cluster's API server, or a folder of manifests. Both say what they observe as
//! [`ResourceEvent`]s.

pub mod cluster;
mod event;
pub mod folder;

pub use event::{Absence, Observed, ResourceEvent, Watched};
