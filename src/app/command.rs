//! The process: parses the command line, sets up logging, and runs the command.

use std::process::ExitCode;

use crate::cli::{self, Exit, Io, LogFormat, Next};
use crate::model::SystemClock;
use crate::telemetry::{self, LogFormat as Format};

/// Runs the command line of this process to its end.
pub(crate) async fn main() -> ExitCode {
    let cli = cli::parse();
    let mut out = anstream::AutoStream::auto(std::io::stdout());
    let mut err = anstream::AutoStream::auto(std::io::stderr());
    let mut io = Io { out: &mut out, err: &mut err };
    let config = match cli::dispatch(cli, &mut io, &SystemClock).await {
        Ok(Next::Exit(exit)) => return exit.into(),
        Ok(Next::Run(config)) => config,
        Err(error) => return error.report(&mut io).into(),
    };
    let format = match config.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    if let Err(error) = telemetry::init_logs(format, &config.log_level, super::without_names) {
        tracing::error!(%error, "cannot set up logs");
        return Exit::Usage.into();
    }
    match super::run(*config).await {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            tracing::error!(reason = error.reason(), "{error}");
            Exit::Unavailable.into()
        }
    }
}
