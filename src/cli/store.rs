//! `rolecall store`: decisions about the store that only a person can make.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::controller::checkpoint::{self, CheckpointError, Checkpoints, Comparison};
use crate::model::{Clock, ProviderName, SystemClock};
use crate::store::{Decision, DirectoryUse, Origin, Store, Trust};

use super::config::DatabaseUrl;
use super::erase::{self, StoreEraseArgs};
use super::prune::{self, StorePruneArgs};
use super::verify::{self, StoreVerifyArgs};
use super::{CliError, Exit, Io};

const ACCEPT_EXAMPLES: &str = "\
The store that was last used, and its position, are recorded in a file next to the folder of manifests, and in a cluster in
the Lease of rolecall. A store that is new, or that was restored from a backup, is not trusted: nothing is written until
this command accepts it. An older store lacks the grants that rolecall made after the backup: they count as foreign, and
stay in the policies until somebody removes them by hand.

Examples:
  rolecall store accept --database sqlite:/var/lib/rolecall/rolecall.db --manifests /srv/access
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall store accept \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 accepted, 2 wrong command line, 3 the store or the file is not usable.";

const PROVIDER_EXAMPLES: &str = "\
An IdentityProvider with the name of a former one does not own the people and groups that are stored under that name. Until
one of these commands decides about them, its requests are answered with 503 and nothing is granted or removed (reason
IdentityProviderChanged). accept-provider hands them over, together with their grants. purge-provider deletes them, as if
their IdP had deleted each of them: their grants are revoked, as far as the guard permits it. The running rolecall
continues within seconds.

Examples:
  rolecall store accept-provider okta --database sqlite:/var/lib/rolecall/rolecall.db
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall store purge-provider okta \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 done, 1 nothing to accept or the provider is in use, 2 wrong command line, 3 the store is not
usable.";

/// Flags of `rolecall store`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StoreArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// What can be done with the store.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum StoreCommand {
    /// Accept a store that is new or was restored, so that grants are written again
    #[command(after_help = ACCEPT_EXAMPLES)]
    Accept(StoreAcceptArgs),
    /// Hand the people of a former provider over to the current provider of its name
    #[command(after_help = PROVIDER_EXAMPLES)]
    AcceptProvider(StoreProviderArgs),
    /// Delete the people and groups of a former provider
    #[command(after_help = PROVIDER_EXAMPLES)]
    PurgeProvider(StoreProviderArgs),
    /// Remove history and audit rows that are older than a retention period
    #[command(after_help = prune::EXAMPLES)]
    Prune(StorePruneArgs),
    /// Erase the names and addresses of a person who was deleted
    #[command(after_help = erase::EXAMPLES)]
    Erase(StoreEraseArgs),
    /// Verify the hash chain of the audit
    #[command(after_help = verify::EXAMPLES)]
    Verify(StoreVerifyArgs),
}

/// Flags of `rolecall store accept-provider` and `rolecall store purge-provider`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StoreProviderArgs {
    /// The name of the provider
    #[arg(value_name = "NAME", value_parser = |text: &str| ProviderName::new(text))]
    pub(crate) name: ProviderName,

    /// The store: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
}

/// Flags of `rolecall store accept`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StoreAcceptArgs {
    /// The store to accept: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,

    /// The folder of manifests that the store is used with; without one, the decision is for the rolecall that uses the
    /// store in a cluster
    #[arg(long, value_name = "DIR", env = "ROLECALL_MANIFESTS")]
    pub(crate) manifests: Option<PathBuf>,
}

/// Opens an existing store. Creating one here would hide a mistyped path.
pub(super) async fn open_existing(database: &str) -> Result<Store, CliError> {
    let url = DatabaseUrl::parse(database)?;
    let DatabaseUrl::Sqlite(path) = &url;
    std::fs::metadata(path).map_err(|source| CliError::Read { path: path.clone(), source })?;
    Ok(Store::open(&url.to_string(), Arc::new(SystemClock)).await?)
}

/// Runs `rolecall store …`.
pub(super) async fn run(args: &StoreArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    match &args.command {
        StoreCommand::Accept(args) => accept(args, io).await,
        StoreCommand::AcceptProvider(args) => accept_provider(args, io).await,
        StoreCommand::PurgeProvider(args) => purge_provider(args, io).await,
        StoreCommand::Prune(args) => prune::run(args, io, clock).await,
        StoreCommand::Erase(args) => erase::run(args, io, clock).await,
        StoreCommand::Verify(args) => verify::run(args, io).await,
    }
}

async fn accept_provider(args: &StoreProviderArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let name = &args.name;
    let store = open_existing(&args.database).await?;
    if store.accept_directory(name).await? {
        let counts = store.counts(name).await?;
        writeln!(
            io.out,
            "{} users and {} groups are those of IdentityProvider {name} now",
            counts.users, counts.groups
        )?;
        return Ok(Exit::Done);
    }
    writeln!(io.err, "no IdentityProvider {name} waits for people of a former one; nothing was changed")?;
    Ok(Exit::No)
}

async fn purge_provider(args: &StoreProviderArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let name = &args.name;
    let store = open_existing(&args.database).await?;
    if store.directory_use(name).await? == DirectoryUse::InUse {
        writeln!(
            io.err,
            "IdentityProvider {name} is in use; delete it first if its people and groups are to be deleted. Nothing was changed"
        )?;
        return Ok(Exit::No);
    }
    let origin = Origin { token: "purge-provider".to_owned(), request_id: None };
    let purged = store.purge_directory(name, &origin).await?;
    let others = match purged.resources {
        0 => String::new(),
        count => format!(", and {count} resources of other types"),
    };
    writeln!(io.out, "deleted {} users and {} groups of {name}{others}", purged.users, purged.groups)?;
    Ok(Exit::Done)
}

async fn accept(args: &StoreAcceptArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let store = open_existing(&args.database).await?;
    let now = checkpoint::of(&store).await?;
    let Some(manifests) = &args.manifests else {
        store.set_trust(Trust::Accepted).await?;
        store.put_decision(Decision::AcceptStore, SystemClock.now()).await?;
        writeln!(
            io.out,
            "store {} at position {} is accepted; the leader in the cluster continues within seconds",
            now.store_id, now.highest_seq
        )?;
        return Ok(Exit::Done);
    };
    let DatabaseUrl::Sqlite(database) = DatabaseUrl::parse(&args.database)?;
    let mirrors = Checkpoints::of(manifests, &database)?;
    let doubted = store.trust().await? == Trust::Doubted;
    let before = match checkpoint::read(&mirrors.manifests) {
        Ok(Some(seen)) if !doubted && mirrors.found() == [Some(now); 2] => {
            writeln!(io.out, "store {} at position {} is already accepted", seen.store_id, seen.highest_seq)?;
            return Ok(Exit::Done);
        }
        Ok(None) => "no store".to_owned(),
        Ok(Some(seen)) => format!("store {} at position {}", seen.store_id, seen.highest_seq),
        Err(error @ CheckpointError::Malformed { .. }) => {
            writeln!(io.err, "{error}")?;
            "a file that could not be read".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = mirrors.write(&now) {
        // If the checkpoint belongs to another store, this one stays frozen. If there is no checkpoint, the decision in
        // the store is sufficient.
        if mirrors.compare(&now)? != Comparison::Match {
            return Err(error.into());
        }
        writeln!(io.err, "{error}")?;
    }
    store.set_trust(Trust::Accepted).await?;
    // The audit now has one more row, which does not matter to what was accepted.
    if let Err(error) = mirrors.write(&checkpoint::of(&store).await?) {
        writeln!(io.err, "{error}")?;
    }
    writeln!(
        io.out,
        "accepted store {} at position {}; before: {before}; written to {}",
        now.store_id,
        now.highest_seq,
        mirrors.manifests.display()
    )?;
    Ok(Exit::Done)
}
