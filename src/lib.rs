//! rolecall keeps access to Google Cloud Run in step with the identity provider.
//!
//! The modules, and the modules that each may use, are described in `docs/architecture.md`; `tests/layering.rs`
//! enforces them. The only function for other crates is [`run`], which the binary calls; tests outside the crate drive that binary.

use std::process::ExitCode;

pub mod api;
pub mod app;
pub mod catalog;
pub mod cli;
pub mod controller;
#[cfg(test)]
mod fuzz;
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

/// Runs the command line of this process to its end.
pub async fn run() -> ExitCode {
    app::main().await
}
