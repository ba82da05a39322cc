//! The binary.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rolecall::run().await
}
