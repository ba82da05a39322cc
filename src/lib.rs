//! rolecall keeps access to Google Cloud Run in step with the identity provider.
//!
//! The modules, and the modules that each may use, are described in `docs/architecture.md`; `tests/layering.rs`
//! enforces them.

pub mod api;
pub mod app;
pub mod catalog;
pub mod cli;
pub mod controller;
pub mod model;
pub mod plan;
pub mod scim;
pub mod scim_server;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod status;
pub mod store;
pub mod sync;
pub mod target;
pub mod telemetry;
