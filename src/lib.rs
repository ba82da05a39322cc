//! rolecall keeps access to Google Cloud Run in step with the identity provider.
//!
//! The rooms, and what each may use, are described in `docs/architecture.md`; `tests/rooms.rs` holds the table.

pub mod api;
pub mod app;
pub mod cli;
pub mod engine;
pub mod index;
pub mod model;
pub mod plan;
pub mod scim;
pub mod scim_server;
pub mod status;
pub mod store;
pub mod target;
pub mod telemetry;
pub mod watch;
