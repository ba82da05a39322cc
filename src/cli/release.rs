//! `rolecall release`: confirms that missing mappings were meant to be deleted, and releases held removals.

use clap::{Args, Subcommand};

use crate::model::{Clock, Kind, MappingKey};
use crate::store::Decision;

use super::store::open_existing;
use super::{CliError, Exit, Io};

const MAPPING_EXAMPLES: &str = "\
A mapping whose file is missing, without an observed deletion, is frozen: its grants stay (`MappingVanished`,
`ManifestsMissing`). This command confirms the deletion, and the running rolecall ends the grants as if the mapping had
been deleted; the guard against mass removals still applies. A mapping whose manifest exists is not changed.

Example:
  rolecall release mapping checkout/checkout-team --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 stored for the running rolecall, 1 no such mapping, 2 wrong command line, 3 the store is not usable.";

const MANIFESTS_EXAMPLES: &str = "\
A folder from which more than half of the mappings disappeared at once is not trusted (`ManifestsMissing`). This command
confirms the folder as it is, and the running rolecall ends the grants of every mapping that is missing from it; the guard
against mass removals still applies. A folder that does not exist or cannot be read is not trusted in any case.

Example:
  rolecall release manifests --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 stored for the running rolecall, 2 wrong command line, 3 the store is not usable.";

const PLAN_EXAMPLES: &str = "\
Removals that would end the access of many people at once are held (`MassRemoval`). Removals of an existing mapping are
released by the annotation rolecall.dev/release; this command is for those of a deleted one. It releases exactly the
removals that the hash covers, once; when they change, the hash changes too.

Example:
  rolecall release plan 2f1c9a7be0d45c11 --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 stored for the running rolecall, 2 wrong command line, 3 the store is not usable.";

fn plan_hash(text: &str) -> Result<String, String> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 16 && text.bytes().all(hex) {
        Ok(text.to_owned())
    } else {
        Err("a plan's hash is 16 lower-case hexadecimal digits: copy it from `rolecall status -o yaml`".to_owned())
    }
}

/// Flags of `rolecall release`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ReleaseArgs {
    /// What to release.
    #[command(subcommand)]
    pub(crate) command: ReleaseCommand,
}

/// What can be released.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// End the grants of one missing mapping
    #[command(after_help = MAPPING_EXAMPLES)]
    Mapping {
        /// The mapping
        #[arg(value_name = "NAMESPACE/NAME")]
        mapping: MappingKey,
        /// The store of the running rolecall: sqlite:PATH
        #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
        database: String,
    },
    /// Release removals that the guard holds
    #[command(after_help = PLAN_EXAMPLES)]
    Plan {
        /// The hash that `rolecall status` shows under `held.planHash`; several are separated by commas
        #[arg(value_name = "HASH", value_delimiter = ',', required = true, value_parser = plan_hash)]
        hashes: Vec<String>,
        /// The store of the running rolecall: sqlite:PATH
        #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
        database: String,
    },
    /// End the grants of all mappings that are missing from the folder
    #[command(after_help = MANIFESTS_EXAMPLES)]
    Manifests {
        /// The store of the running rolecall: sqlite:PATH
        #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
        database: String,
    },
}

/// Runs `rolecall release …`: stores the decision in the store, where the running process finds it.
pub(super) async fn run(args: &ReleaseArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    match &args.command {
        ReleaseCommand::Mapping { mapping, database } => {
            let store = open_existing(database).await?;
            let known = store.specs().await?.into_iter().any(|spec| {
                spec.kind == Kind::RoleMapping
                    && spec.namespace.as_deref() == Some(mapping.namespace())
                    && spec.name == mapping.name()
            });
            if !known {
                return Err(CliError::UnknownMapping { mapping: mapping.clone() });
            }
            store.put_decision(Decision::ReleaseMapping(mapping.clone()), clock.now()).await?;
            writeln!(
                io.out,
                "stored: the running rolecall ends the grants of {mapping} unless its manifest exists; `rolecall status rolemapping/{mapping}` shows the progress"
            )?;
        }
        ReleaseCommand::Plan { hashes, database } => {
            let store = open_existing(database).await?;
            for hash in hashes {
                store.put_decision(Decision::ReleasePlan(hash.clone()), clock.now()).await?;
            }
            writeln!(
                io.out,
                "stored: the running rolecall makes the removals that are held under {}, if there are any",
                hashes.join(", ")
            )?;
        }
        ReleaseCommand::Manifests { database } => {
            let store = open_existing(database).await?;
            store.put_decision(Decision::ReleaseManifests, clock.now()).await?;
            writeln!(
                io.out,
                "stored: the running rolecall ends the grants of every mapping that is missing from the folder; `rolecall status` shows the progress"
            )?;
        }
    }
    Ok(Exit::Done)
}
