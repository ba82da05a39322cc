//! `rolecall drift`: all differences between policies and what is wanted.

use clap::Args;
use serde::Serialize;

use crate::model::Clock;
use crate::sync::{DriftEntry, DriftOutcome};

use super::config::parse_base_url;
use super::status::{OutputFormat, named, print, read};
use super::table::{self, Row, Tone};
use super::{CliError, Exit, Io, store};

pub(super) const EXAMPLES: &str = "\
Every difference that rolecall found at its last read of each policy: what somebody else added, took away or changed. The statuses have
the first 50 of each target; this has all of them. What `documents[].ignore` and `documents[].unexpected` of a target leave out is not shown.

Examples:
  rolecall drift                                    all targets
  rolecall drift shop-dev -o json                   one of them, for machines
  rolecall drift --show-principals --database sqlite:/var/lib/rolecall/rolecall.db
                                                    with the names of people, which are only in the store

Exit status: 0 no difference is there, 1 there are some, 2 wrong command line, 3 rolecall not reachable.";

/// Flags of `rolecall drift`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DriftArgs {
    /// Only this `CloudRunTarget`
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,

    /// Output format; default: a table
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<OutputFormat>,

    /// Show the names of people instead of ids and digests; needs the store of the running rolecall
    #[arg(long, requires = "database")]
    pub(crate) show_principals: bool,

    /// The store with the names, for --show-principals: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,

    /// Address of the admin port of the running rolecall
    #[arg(long, value_name = "URL", env = "ROLECALL_ADMIN", default_value = "http://127.0.0.1:8081")]
    pub(crate) admin: String,
}

#[derive(Serialize)]
struct Listed<'a> {
    drift: &'a [DriftEntry],
}

/// Runs `rolecall drift`.
pub(super) async fn run(args: &DriftArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let admin = parse_base_url("--admin", &args.admin)?;
    let url = format!("{}/drift", admin.as_str().trim_end_matches('/'));
    let strange = |problem: String| CliError::AdminStrange { url: url.clone(), problem };
    let Some(body) = read(&url).await? else { return Err(strange("it has no drift".to_owned())) };
    let mut all: Vec<DriftEntry> = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
    if let Some(target) = &args.target {
        all.retain(|entry| entry.target == *target);
    }
    if let Some(database) = args.database.as_deref().filter(|_| args.show_principals) {
        let names = store::open_existing(database).await?.names().await?;
        for entry in &mut all {
            entry.principal = named(&entry.principal, &names).into_owned();
        }
    }
    match args.output {
        Some(OutputFormat::Json | OutputFormat::Yaml) => print(&Listed { drift: &all }, args.output, io)?,
        None | Some(OutputFormat::Wide) if all.is_empty() => writeln!(io.err, "no drift found")?,
        None | Some(OutputFormat::Wide) => {
            let wide = args.output.is_some();
            let rows: Vec<Row> = all.iter().map(|entry| row(entry, wide, clock)).collect();
            let mut header = vec!["TARGET", "TYPE", "RESOURCE", "ROLE", "PRINCIPAL", "OUTCOME", "AGE"];
            if wide {
                header.extend(["CONDITION", "MAPPINGS"]);
            }
            io.out.write_all(table::render(&header, &rows).as_bytes())?;
        }
    }
    let is_there = all.iter().any(|entry| entry.outcome == DriftOutcome::Reported);
    Ok(if is_there { Exit::No } else { Exit::Done })
}

fn row(entry: &DriftEntry, wide: bool, clock: &dyn Clock) -> Row {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    // The project is that of the target.
    let short = entry.resource.split_once("/locations/").map_or(entry.resource.as_str(), |(_, rest)| rest);
    let outcome = match entry.outcome {
        DriftOutcome::Reported => "Reported".to_owned(),
        DriftOutcome::Reverted => format!("Reverted {}x", entry.times),
    };
    let mut cells = vec![
        entry.target.clone(),
        entry.kind.word().to_owned(),
        short.to_owned(),
        or_dash(&entry.role),
        or_dash(&entry.principal),
        outcome,
        table::age(entry.first_seen, clock.now()),
    ];
    if wide {
        cells.extend([or_dash(&entry.condition), or_dash(&entry.mappings.join(","))]);
    }
    Row { tone: if entry.outcome == DriftOutcome::Reported { Tone::Caution } else { Tone::Plain }, cells }
}
