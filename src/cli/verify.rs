//! `rolecall store verify`: the hash chain of the audit.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use crate::store::{AuditChain, StoreError};

use super::prune::ResultFormat;
use super::store::open_existing;
use super::{CliError, Exit, Io};

pub(super) const EXAMPLES: &str = "\
Recomputes the hash of every row of the audit from its columns and the hash of the row before it. A log that was pruned is
verified from the last removed row, if a row of the chain records that it was pruned up to there. Anybody who can write the
database can rewrite the whole chain: keep the last hash somewhere else, and compare it with that row later.

Examples:
  rolecall store verify --database sqlite:/var/lib/rolecall/rolecall.db
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall store verify -o json \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 the chain is intact, 1 it is not, 2 wrong command line, 3 the store is not usable.";

/// Flags of `rolecall store verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StoreVerifyArgs {
    /// Output format; default: text
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<ResultFormat>,

    /// The store: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
}

/// Runs `rolecall store verify`.
pub(super) async fn run(args: &StoreVerifyArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let store = open_existing(&args.database).await?;
    let (exit, value, text) = match store.verify_audit().await {
        Ok(AuditChain { since, rows, hash }) => {
            let last = since.saturating_add_unsigned(rows).saturating_sub(1);
            let mut text = format!("{rows} rows of the audit hold; the last is row {last} with hash {hash}");
            if since > 1 {
                // Writing to a string cannot fail.
                let _ = write!(text, "; it begins with row {since}, those before were pruned");
            }
            let value = json!({"holds": true, "rows": rows, "since": since, "last": last, "hash": hash});
            (Exit::Done, value, text)
        }
        Err(error @ StoreError::AuditBroken { seq }) => {
            let text = error.to_string();
            (Exit::No, json!({"holds": false, "brokenAt": seq, "message": text}), text)
        }
        Err(error) => return Err(error.into()),
    };
    if args.output == Some(ResultFormat::Json) {
        serde_json::to_writer_pretty(&mut *io.out, &value).map_err(std::io::Error::from)?;
        writeln!(io.out)?;
    } else if exit == Exit::Done {
        writeln!(io.out, "{text}")?;
    } else {
        writeln!(io.err, "{text}")?;
    }
    Ok(exit)
}
