//! The binary.

use std::process::ExitCode;

/// The allocator of musl, with which the image is linked, serializes threads, and planning allocates much. See
/// `docs/decisions/035-mimalloc.md`.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    rolecall::run().await
}
