//! Tests that need a cluster: a real kube-apiserver, the real chart, the real binary, the emulator as Google.
//!
//! `make test` builds the control plane (`scripts/cluster_tools.py`) and runs these; `support/mod.rs` explains how to
//! write one.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails, and says where")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests; not each module needs all of it"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../src/api/manifest/tests/table.rs"]
mod table;

mod end_to_end;
mod flux;
mod freezes;
mod gitops;
mod helm;
mod leadership;
mod observers;
mod outages;
mod resources;
mod rights;
mod scale;
mod support;
mod users;
