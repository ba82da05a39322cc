//! rolecall keeps access to Google Cloud Run in step with the identity provider.
//!
//! The modules, and the modules that each may use, are described in `docs/architecture.md`; `tests/layering.rs`
//! enforces them. The only function for other crates is [`run`], which the binary calls; tests outside the crate drive that binary.

use std::process::ExitCode;

mod api;
mod app;
mod catalog;
mod cli;
mod controller;
#[cfg(test)]
mod fuzz;
mod model;
mod plan;
mod scim;
mod scim_server;
#[cfg(test)]
mod simulation;
mod source;
mod status;
mod store;
mod sync;
mod target;
mod telemetry;

/// Runs the command line of this process to its end.
pub async fn run() -> ExitCode {
    app::main().await
}
