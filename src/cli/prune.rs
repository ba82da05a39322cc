//! `rolecall store prune`: retention.

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::model::Clock;
use crate::store::Pruned;

use super::store::open_existing;
use super::{CliError, Exit, Io};

pub(super) const EXAMPLES: &str = "\
The store keeps every change: of the directory, of mappings, targets and providers, of pins and inventory, and every row of the
audit. This command removes rows that are older than --older-than and not needed by younger ones: the directory, and the
wanted grants, can still be rebuilt for every remaining position; for an older one there is an error. Older rows of the audit
are removed, with the names that no other row has. Its hash chain is verified first, and from then on from the last removed
row, whose position and hash are in the audit row of the prune: keep a copy of the rows themselves if you need them.

No grant changes, and no user or group of the identity provider is removed. The command runs while a rolecall uses the store,
in short transactions; when it is interrupted, run it again. New rows use the space again. With --vacuum the file is
rewritten: it shrinks, and contains nothing of the removed rows. Backups and copies are not changed.

Examples:
  rolecall store prune --older-than 400d --dry-run --database sqlite:/var/lib/rolecall/rolecall.db
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall store prune --older-than 400d \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 done, 2 wrong command line, 3 the store is not usable, or its audit was tampered with.";

/// Smallest permitted age. No follower of the event log is ever this far behind.
const LEAST: SignedDuration = SignedDuration::from_hours(1);

/// An age: a number of days or weeks, or a duration of smaller units.
fn age(text: &str) -> Result<SignedDuration, String> {
    let days = |unit: char, days: i64| {
        let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(SignedDuration::from_secs(number.checked_mul(days * 24 * 60 * 60)?))
    };
    let age = days('d', 1).or_else(|| days('w', 7)).or_else(|| text.parse().ok());
    let age = age.ok_or_else(|| "write a number with a unit, such as 400d, 12w or 36h".to_owned())?;
    if age < LEAST { Err("1h is the least".to_owned()) } else { Ok(age) }
}

/// How the result of a verb is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// One JSON object.
    Json,
}

/// Flags of `rolecall store prune`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StorePruneArgs {
    /// Age from which on rows are removed: a number with w, d, h or m, such as 400d; at least 1h
    #[arg(long, value_name = "DURATION", value_parser = age)]
    pub(crate) older_than: SignedDuration,

    /// Only report what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Rewrite the file afterwards, which needs space for a copy; writers wait about a second for each 100 MB
    #[arg(long)]
    pub(crate) vacuum: bool,

    /// Output format; default: text
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<ResultFormat>,

    /// The store: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
}

/// Runs `rolecall store prune`.
pub(super) async fn run(args: &StorePruneArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let store = open_existing(&args.database).await?;
    let before = clock.now().saturating_sub(args.older_than).unwrap_or(Timestamp::MIN);
    let pruned = store.prune(before, args.dry_run).await?;
    if args.vacuum && !args.dry_run {
        store.rewrite_file().await?;
    }
    match args.output {
        Some(ResultFormat::Json) => {
            let result = json!({
                "dryRun": args.dry_run,
                "before": before.to_string(),
                "historySince": pruned.history_since,
                "auditSince": pruned.audit_since,
                "removed": {
                    "events": pruned.events,
                    "shortenedEvents": pruned.shortened_events,
                    "specVersions": pruned.spec_versions,
                    "history": pruned.history,
                    "auditRows": pruned.audit_rows,
                    "names": pruned.names,
                    "refusals": pruned.refusals,
                },
            });
            serde_json::to_writer_pretty(&mut *io.out, &result).map_err(std::io::Error::from)?;
            writeln!(io.out)?;
        }
        None => write_text(&pruned, before, args.dry_run, io)?,
    }
    Ok(Exit::Done)
}

fn write_text(pruned: &Pruned, before: Timestamp, dry: bool, io: &mut Io<'_>) -> std::io::Result<()> {
    let removed = if dry { "would remove" } else { "removed" };
    writeln!(
        io.out,
        "{removed} what is older than {before} and not needed: {} events ({} more shortened), {} versions of resources, \
         {} other changes, {} audit rows, {} names, {} refusals of people who are gone",
        pruned.events,
        pruned.shortened_events,
        pruned.spec_versions,
        pruned.history,
        pruned.audit_rows,
        pruned.names,
        pruned.refusals
    )?;
    let can = if dry { "could be" } else { "can be" };
    writeln!(
        io.out,
        "positions from {} on {can} rebuilt; the audit begins with row {}",
        pruned.history_since, pruned.audit_since
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_in_weeks_days_and_smaller_units_and_are_an_hour_at_least() {
        for (text, hours) in [("400d", 9600), ("2w", 336), ("36h", 36), ("1h", 1), ("1h 60m", 2)] {
            assert_eq!(age(text), Ok(SignedDuration::from_hours(hours)), "{text}");
        }
        for text in
            ["", "d", "400", "-3d", "59m", "0d", "1y", "99999999999999999999d", "9223372036854775807d", "a year"]
        {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
