//! Integration tests of the whole of rolecall: the real binary, real SQLite, real HTTP, the emulator as Google.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails, and says where")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests; not each module needs all of it"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/issuer.rs"]
mod issuer;

mod absence;
mod capture;
mod causes;
mod claims;
mod connections;
mod crash;
mod drift;
mod end_to_end;
mod ends;
mod folder;
mod guard;
mod lanes;
mod leadership;
mod manifests;
mod memory;
mod nesting;
mod oauth;
mod observers;
mod oidc;
mod pacing;
mod people;
mod permits;
mod policies;
mod power;
mod preflight;
mod process;
mod progress;
mod record;
mod recreated;
mod refusals;
mod retention;
mod secrets;
mod size;
mod spelling;
mod stale;
mod statuses;
mod support;
mod switches;
mod tenants;
mod uninstall;
