//! Telemetry: log lines, metrics and the admin port.
//!
//! Log fields are dotted and spelled the same everywhere; their names are in [`field`]. A message is a sentence without
//! a full stop. Lines at level info and below contain no names of people, only ids, and no tokens.

mod admin;
pub mod field;
mod log;
mod metrics;
mod readiness;

pub use admin::{Admin, DEFAULT_ADMIN_LISTEN, ProgressProvider, StatusProvider, admin_router, probe_router};
pub use log::{DEFAULT_FILTER, LogFormat, Redact, TelemetryError, init_logs};
pub use metrics::{
    ClusterMetrics, Counters, Definition, EngineMetrics, Gauges, GoogleMetrics, Histograms, HttpMetrics, Metrics,
    ProviderCounters, ScimMetrics, StoreMetrics, code_word,
};
pub use readiness::{Part, Readiness};
