//! Telemetry: log lines, metrics and the admin port.
//!
//! Log fields are dotted and spelled the same everywhere; their names are in [`field`]. A message is a sentence without
//! a full stop. Lines at level info and below contain no names of people, only ids, and no tokens.

mod admin;
pub(crate) mod field;
mod log;
mod metrics;
mod readiness;

pub(crate) use admin::{Admin, admin_router, probe_router};
pub(crate) use log::{LogFormat, init_logs};
pub(crate) use metrics::{ClusterMetrics, EngineMetrics, GoogleMetrics, HttpMetrics, Metrics, ScimMetrics, code_word};
pub(crate) use readiness::{Part, Readiness};
