//! `rolecall-emulator --listen ADDR`

use std::net::SocketAddr;

use clap::Parser;

/// A faithful stand-in for Google's Cloud Run, IAP, Resource Manager and IAM APIs.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Address and port to listen on; port 0 takes a free one, which is printed
    #[arg(long, env = "ROLECALL_EMULATOR_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDR")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    use std::io::Write;

    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let emulator = match rolecall_emulator::start(arguments.listen).await {
        Ok(emulator) => emulator,
        Err(error) => {
            tracing::error!(%error, address = %arguments.listen, "cannot listen");
            return std::process::ExitCode::FAILURE;
        }
    };
    // The only line on standard output; the parent process reads the port from it.
    let line = format!("listening on {}\n", emulator.url());
    let mut output = std::io::stdout();
    if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
        tracing::debug!("standard output is closed");
    }
    tokio::select! {
        () = emulator.run() => {}
        () = interrupted() => {}
    }
    std::process::ExitCode::SUCCESS
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
