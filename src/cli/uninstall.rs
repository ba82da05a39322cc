//! `rolecall uninstall`: ends all grants before the installation is removed.

use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::model::{Clock, Kind};
use crate::store::{Decision, Store, UninstallMode};

use super::store::open_existing;
use super::{CliError, Exit, Io};

pub(super) const EXAMPLES: &str = "\
Removing rolecall removes no grant, and leaves its finalizer on every RoleMapping, so that none can be deleted any more. This
command makes the running rolecall settle both: with --revoke all grants are removed from the policies, with --orphan they
stay and belong to nobody. From then on nothing is granted, also after a restart, until --cancel is used.

Examples:
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall uninstall --revoke
  helm uninstall rolecall -n rolecall-system

  rolecall uninstall --orphan --database sqlite:/var/lib/rolecall/rolecall.db
  rolecall uninstall --cancel --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 all grants are settled, 1 not within --timeout (it continues), 2 wrong command line, 3 the store is not usable.";

/// Interval between checks of the progress.
const LOOK: Duration = Duration::from_millis(500);

/// Parses a duration, or a number of seconds.
fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let duration = || text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    seconds.or_else(duration).ok_or_else(|| "write a number with a unit, such as 30s, 5m or 1h".to_owned())
}

/// Flags of `rolecall uninstall`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["revoke", "orphan", "cancel"])))]
pub(crate) struct UninstallArgs {
    /// Remove all grants of rolecall from the policies; the guard against mass removals does not apply
    #[arg(long)]
    pub(crate) revoke: bool,
    /// Leave all grants in the policies, and give up their ownership
    #[arg(long)]
    pub(crate) orphan: bool,
    /// Cancel the uninstall: mappings are followed again once rolecall is restarted
    #[arg(long)]
    pub(crate) cancel: bool,
    /// The store of the running rolecall: sqlite:PATH
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
    /// Time to wait until all grants are settled, such as 10m; 0s: do not wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// Remaining work of the running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    mappings: usize,
    policies: usize,
}

async fn left(store: &Store) -> Result<Left, CliError> {
    let specs = store.specs().await?;
    let mappings = specs.iter().filter(|spec| spec.kind == Kind::RoleMapping).count();
    Ok(Left { mappings, policies: store.ledger_documents().await?.len() })
}

/// Runs `rolecall uninstall`: stores the decision in the store, and the running process carries it out.
pub(super) async fn run(args: &UninstallArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let store = open_existing(&args.database).await?;
    if args.cancel {
        store.cancel_uninstall().await?;
        writeln!(io.out, "uninstall canceled; restart rolecall to follow the mappings again")?;
        return Ok(Exit::Done);
    }
    let uninstall = if args.orphan { UninstallMode::Orphan } else { UninstallMode::Revoke };
    if store.uninstall_mode().await? != Some(uninstall) {
        // Also clears the record that an earlier uninstall has settled, which would be mistaken for the answer to this
        // one.
        store.cancel_uninstall().await?;
    }
    store.put_decision(Decision::Uninstall(uninstall), clock.now()).await?;
    let since = std::time::Instant::now();
    let mut shown = None;
    loop {
        let now = left(&store).await?;
        if store.decisions().await?.iter().any(|pending| pending.decision == Decision::Uninstalled) {
            writeln!(io.out, "settled: rolecall has no grants any more and can be removed")?;
            return Ok(Exit::Done);
        }
        if shown != Some(now) {
            let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
            writeln!(
                io.err,
                "to be settled: {}, grants on {}",
                plural(now.mappings, "mapping", "mappings"),
                plural(now.policies, "policy", "policies")
            )?;
            io.err.flush()?;
            shown = Some(now);
        }
        if since.elapsed() >= args.timeout {
            writeln!(
                io.err,
                "not settled yet: see `rolecall status` and the log for the cause; the running rolecall continues"
            )?;
            return Ok(Exit::No);
        }
        tokio::time::sleep(LOOK).await;
    }
}
