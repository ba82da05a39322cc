//! A cluster for tests.

#![allow(dead_code, reason = "not each kind of test needs all of it")]

mod audit;
mod control_plane;
mod kubernetes;
mod process;
mod proxy;
mod tools;

pub use control_plane::ControlPlane;
pub use kubernetes::{Kubernetes, Refused, collection, documents, named, path};
pub use tools::kstatus;

pub use crate::common::*;
