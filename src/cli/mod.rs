//! The commands of the binary: from flags to text and an exit status.
//!
//! No code here prints directly: text goes through [`Io`], so that every command can be tested like a function.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::model::{Clock, MappingKey};

mod adopt;
mod config;
mod doctor;
mod drift;
mod erase;
mod lint;
mod preflight;
mod prune;
mod reference;
mod release;
mod replay;
mod run;
mod schemas;
mod status;
mod store;
mod table;
mod token;
mod uninstall;
mod verify;

pub(crate) use adopt::AdoptArgs;
pub(crate) use config::{ConfigError, ConfigErrors, DatabaseUrl, LogFormat, Mode, RunConfig, google_client};
pub(crate) use doctor::DoctorArgs;
pub(crate) use drift::DriftArgs;
pub(crate) use lint::LintArgs;
pub(crate) use preflight::PreflightArgs;
pub(crate) use reference::ReferenceArgs;
pub(crate) use release::ReleaseArgs;
pub(crate) use replay::ReplayArgs;
pub(crate) use run::RunArgs;
pub(crate) use schemas::{SchemaFileError, load as load_schemas};
pub(crate) use status::StatusArgs;
pub(crate) use store::StoreArgs;
pub(crate) use token::TokenArgs;
pub(crate) use uninstall::UninstallArgs;

const ABOUT: &str = "Keeps Google Cloud Run IAM in step with your identity provider";

const EXAMPLES: &str = "\
Examples:
  rolecall run --database sqlite:rolecall.db --manifests ./access --mode observe
  rolecall status                                  what every mapping came to
  rolecall status rolemapping/checkout-team        one of them, with its conditions
  rolecall doctor okta                             what the requests of an identity provider get wrong
  rolecall lint access                             the checks of `run`, before anything runs
  rolecall preflight access                        whether it has the permissions that it needs at Google

Exit status:
  0  done
  1  it worked, and the answer is no: problems found, or no such object
  2  the command line is wrong
  3  it could not be done: a file, the store or the running rolecall was not reachable";

/// The command line of rolecall.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "rolecall", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Parses the command line of this process. On an error, prints it and exits.
#[must_use]
pub(crate) fn parse() -> Cli {
    let matches = with_paragraphs(Cli::command()).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Joins the lines of each paragraph of help text, so that the terminal wraps them at its own width.
fn with_paragraphs(mut command: clap::Command) -> clap::Command {
    if let Some(help) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(paragraphs(&help));
    }
    command.mut_subcommands(with_paragraphs)
}

/// The text with each paragraph on one line. Indented lines, such as examples, are not joined.
fn paragraphs(text: &str) -> String {
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut joined = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        joined.push_str(line);
        if let Some(next) = lines.peek() {
            joined.push(if is_prose(line) && is_prose(next) { ' ' } else { '\n' });
        }
    }
    joined
}

/// The verbs.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one value of it in a process, for a moment")]
pub(crate) enum Command {
    /// Serve SCIM to identity providers and keep the IAM policies in step
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),
    /// Show the status of the resources of a running rolecall
    #[command(after_help = status::EXAMPLES)]
    Status(StatusArgs),
    /// Show all differences between policies and what is wanted
    #[command(after_help = drift::EXAMPLES)]
    Drift(DriftArgs),
    /// Explain what the requests of an identity provider get wrong
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Try captured requests of an identity provider on an empty directory
    #[command(after_help = replay::EXAMPLES)]
    Replay(ReplayArgs),
    /// Make tokens for identity providers
    Token(TokenArgs),
    /// Check manifests as `run` does, without starting anything
    #[command(after_help = lint::EXAMPLES)]
    Lint(LintArgs),
    /// Test the permissions that the targets need at Google, and print what grants them
    #[command(after_help = preflight::EXAMPLES)]
    Preflight(PreflightArgs),
    /// Write the mappings that would explain the grants that stand today
    #[command(after_help = adopt::EXAMPLES)]
    Adopt(AdoptArgs),
    /// Print the definitions of the custom resources as YAML
    Crds,
    /// Maintain the store
    Store(StoreArgs),
    /// Confirm removals that are frozen or held
    Release(ReleaseArgs),
    /// Settle all grants before rolecall is removed
    #[command(after_help = uninstall::EXAMPLES)]
    Uninstall(UninstallArgs),
    /// Print the version
    Version,
    /// Print generated pages of the documentation
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// Output streams of a command. Text may contain ANSI styles: a stream that is not a terminal has to be wrapped so that
/// they are removed (`anstream` does, and respects `NO_COLOR`).
pub(crate) struct Io<'a> {
    /// Output of the command.
    pub(crate) out: &'a mut dyn Write,
    /// Messages and errors.
    pub(crate) err: &'a mut dyn Write,
}

/// Outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Done,
    /// The command worked, and its answer is negative.
    No,
    /// The command line is wrong.
    Usage,
    /// The command could not be carried out.
    Unavailable,
}

impl Exit {
    /// The exit status of the process.
    #[must_use]
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The flags of `run` are invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A flag of another command is invalid.
    #[error(transparent)]
    Flag(#[from] ConfigError),
    /// The kind is unknown.
    #[error("`{kind}` is not a kind: write one of {known}")]
    UnknownKind {
        /// The given kind.
        kind: String,
        /// The known kinds.
        known: String,
    },
    /// The object is unknown.
    #[error("{kind} `{name}` is not known to the rolecall at {admin}: `rolecall status` lists what is")]
    NotFound {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
        /// The URL of the admin port.
        admin: String,
    },
    /// Nothing is captured.
    #[error(
        "no requests of `{provider}` are captured by the rolecall at {admin}: set `spec.scim.captureUntil` of the IdentityProvider to a time within 24 hours, and let the IdP try again"
    )]
    NotCaptured {
        /// The name of the provider.
        provider: String,
        /// The URL of the admin port.
        admin: String,
    },
    /// The file has no captured requests.
    #[error("`{path}` has no captured requests: {problem}: write it with `rolecall doctor IDP --capture`")]
    NoCapture {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Captured requests cannot be replayed.
    #[error(transparent)]
    Replay(#[from] crate::scim_server::ReplayError),
    /// The mapping is not in the store.
    #[error("RoleMapping `{mapping}` was never read from manifests with this store, so there is nothing to release")]
    UnknownMapping {
        /// The mapping.
        mapping: MappingKey,
    },
    /// The admin port did not answer.
    #[error("cannot reach rolecall at {url}: {problem}: is it running, and is --admin its --admin-listen address?")]
    AdminUnreachable {
        /// The requested URL.
        url: String,
        /// The problem.
        problem: String,
    },
    /// The admin port answered with something other than a status list.
    #[error("{url} does not answer like a rolecall of this version: {problem}")]
    AdminStrange {
        /// The requested URL.
        url: String,
        /// The problem.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The target is not in the store.
    #[error("CloudRunTarget `{target}` was never read from manifests with this store: name one that is in force")]
    UnknownTarget {
        /// The target.
        target: String,
    },
    /// The policies cannot be read.
    #[error("cannot read {what}: {problem}: nothing is explained by a part of the policies")]
    Unread {
        /// What cannot be read.
        what: String,
        /// Google's answer.
        problem: String,
    },
    /// The base URL of the Google APIs is wrong.
    #[error(transparent)]
    Endpoint(#[from] crate::target::google::EndpointError),
    /// A client of the Google APIs could not be made.
    #[error(transparent)]
    Google(#[from] crate::target::google::GoogleError),
    /// The CRDs could not be generated.
    #[error(transparent)]
    Crds(#[from] crate::api::CrdError),
    /// The store could not be opened or used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The checkpoint next to the manifests could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] crate::controller::checkpoint::CheckpointError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit status for this error.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Flag(_) | Self::UnknownKind { .. } | Self::NoCapture { .. } | Self::Endpoint(_) => {
                Exit::Usage
            }
            Self::NotFound { .. }
            | Self::UnknownTarget { .. }
            | Self::UnknownMapping { .. }
            | Self::NotCaptured { .. } => Exit::No,
            // A reader that closed its end (`| head`) is not a failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::AdminUnreachable { .. }
            | Self::AdminStrange { .. }
            | Self::Read { .. }
            | Self::Crds(_)
            | Self::Google(_)
            | Self::Unread { .. }
            | Self::Replay(_)
            | Self::Store(_)
            | Self::Checkpoint(_)
            | Self::Output(_) => Exit::Unavailable,
        }
    }

    /// Writes the error to the error stream, one line per mistake, and returns the exit status.
    pub(crate) fn report(&self, io: &mut Io<'_>) -> Exit {
        let exit = self.exit();
        if exit != Exit::Done {
            for line in self.to_string().lines() {
                // If even the error stream cannot be written, only the exit status is left.
                let _ = writeln!(io.err, "{}error:{} {}", table::BAD, table::RESET, table::one_line(line));
            }
        }
        exit
    }
}

/// The next step after a command.
#[derive(Debug)]
pub(crate) enum Next {
    /// Run the service with this configuration.
    Run(Box<RunConfig>),
    /// The command is finished.
    Exit(Exit),
}

/// Runs a command. `run` is only checked: its configuration is returned, since wiring belongs to `app`.
///
/// # Errors
/// [`CliError`]; [`CliError::report`] prints it and gives the exit status.
pub(crate) async fn dispatch(cli: Cli, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Next, CliError> {
    let exit = match cli.command {
        Command::Run(args) => return Ok(Next::Run(Box::new(RunConfig::from_args(&args)?))),
        Command::Status(args) => status::run(&args, io, clock).await?,
        Command::Drift(args) => drift::run(&args, io, clock).await?,
        Command::Doctor(args) => doctor::run(&args, io, clock).await?,
        Command::Replay(args) => replay::run(&args, io).await?,
        Command::Token(args) => token::run(&args, io)?,
        Command::Lint(args) => lint::run(&args, io)?,
        Command::Preflight(args) => preflight::run(&args, io).await?,
        Command::Adopt(args) => adopt::run(&args, io).await?,
        Command::Crds => {
            for (_, yaml) in crate::api::crds_yaml()? {
                write!(io.out, "---\n{}", yaml.strip_prefix("---\n").unwrap_or(&yaml))?;
            }
            Exit::Done
        }
        Command::Store(args) => store::run(&args, io, clock).await?,
        Command::Release(args) => release::run(&args, io, clock).await?,
        Command::Uninstall(args) => uninstall::run(&args, io, clock).await?,
        Command::Version => {
            writeln!(io.out, "rolecall {}", env!("CARGO_PKG_VERSION"))?;
            Exit::Done
        }
        Command::Reference(args) => reference::run(&args, io)?,
    };
    io.out.flush()?;
    Ok(Next::Exit(exit))
}

#[cfg(test)]
mod tests;
