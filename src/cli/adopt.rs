//! `rolecall adopt`: the mappings that would explain the grants that stand in the policies of a target today.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::api::{ADOPT_ANNOTATION, CloudRunTarget, CloudRunTargetSpec, IdentityProvider};
use crate::catalog::{Catalog, Ceiling, Explained, Explanation, Named, Standing};
use crate::model::{DocumentKey, GrantKey, GrantState, Kind, Live, ProviderName, ResourceKind, Role};
use crate::store::{Store, StoreError};
use crate::target::{ErrorKind, Target, TargetError};

use super::config::{CredentialsKind, google_client, parse_base_url};
use super::store::open_existing;
use super::{CliError, Exit, Io, table};

pub(super) const EXAMPLES: &str = "\
For a project in which people were granted roles by hand. The policies of the target are read, and the groups of the identity
providers are looked for whose members all have a role already: a mapping of such a group gives access to nobody. The
mappings are printed; nothing is changed, and no names of people are printed. Review them, put them among your manifests,
and permit `Adopt` in the target: rolecall then takes over the grants without an interruption, and removes them when their
people leave.

Examples:
  rolecall adopt shop-dev --namespace checkout --database sqlite:/var/lib/rolecall/rolecall.db > mappings.yaml
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall adopt shop-dev --namespace checkout \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 all grants are explained, 1 some are not or no such target, 2 wrong command line, 3 the store or Google is not usable.";

/// Number of policies that are read concurrently.
const PARALLEL: usize = 8;
/// Largest number of repetitions of a read when Google asks for fewer requests.
const TRIES: u32 = 20;
/// The time between two tries when Google does not say how long to wait.
const PAUSE: Duration = Duration::from_secs(5);
/// Largest number of resources in one entry of `grants`, as in the schema.
const RESOURCES: usize = 64;

/// Flags of `rolecall adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct AdoptArgs {
    /// The name of the `CloudRunTarget`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// Namespace of the printed mappings
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,

    /// The store with the directory: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,

    /// One base URL for all Google APIs, such as an emulator's; default: Google's own hosts
    #[arg(long, value_name = "URL", env = "ROLECALL_GOOGLE_ENDPOINT")]
    pub(crate) google_endpoint: Option<String>,

    /// adc: Application Default Credentials; none: for an emulator
    #[arg(long, value_enum, env = "ROLECALL_GOOGLE_CREDENTIALS", default_value = "adc")]
    pub(crate) google_credentials: CredentialsKind,
}

/// A policy as it was read, with the grants in it that rolecall made.
struct Read {
    document: DocumentKey,
    live: Arc<Live>,
    managed: BTreeSet<GrantKey>,
}

/// Runs `rolecall adopt`.
pub(super) async fn run(args: &AdoptArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let endpoint = args.google_endpoint.as_deref().map(|text| parse_base_url("--google-endpoint", text)).transpose()?;
    let google = Target::Google(google_client::<CliError>(endpoint.as_ref(), args.google_credentials)?);
    let store = open_existing(&args.database).await?;
    let Some(stored) = store.spec(Kind::CloudRunTarget, None, &args.target).await? else {
        return Err(CliError::UnknownTarget { target: table::one_line(&args.target) });
    };
    let target: CloudRunTarget = parsed(&stored.json)?;
    let catalog = directory(&store).await?;
    let policies = read(&google, &store, &target.spec, io).await?;
    let standing: Vec<Standing<'_>> =
        policies.iter().map(|Read { document, live, managed }| Standing { document, live, managed }).collect();
    let explanation = catalog.explain(&standing);
    let taken =
        store.specs().await?.into_iter().filter(|spec| {
            spec.kind == Kind::RoleMapping && spec.namespace.as_deref() == Some(args.namespace.as_str())
        });
    for mapping in mappings(&explanation, args, taken.map(|spec| spec.name).collect()) {
        let text = serde_saphyr::to_string(&mapping).map_err(std::io::Error::other)?;
        write!(io.out, "---\n{text}")?;
    }
    io.err.write_all(summary(&explanation, policies.len(), &args.target).as_bytes())?;
    Ok(if explanation.explained == explanation.grants { Exit::Done } else { Exit::No })
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, CliError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged { what: "specs", problem: error.to_string() };
    Ok(serde_json::from_str(json).map_err(damaged)?)
}

/// The people and groups of all providers.
async fn directory(store: &Store) -> Result<Catalog, CliError> {
    let mut catalog = Catalog::new(Ceiling::Observe);
    for provider in store.before_nesting().await? {
        drop(catalog.set_before_nesting(&provider));
    }
    for spec in store.specs().await?.into_iter().filter(|spec| spec.kind == Kind::IdentityProvider) {
        let Ok(name) = ProviderName::new(&spec.name) else { continue };
        drop(catalog.apply_provider(name, parsed::<IdentityProvider>(&spec.json)?.spec));
    }
    store.snapshot(&mut |provider, change| drop(catalog.apply_directory(&provider, &change))).await?;
    Ok(catalog)
}

/// Reads all policies of the target. A part of them would explain nothing, so every failure is an error.
async fn read(
    google: &Target,
    store: &Store,
    spec: &CloudRunTargetSpec,
    io: &mut Io<'_>,
) -> Result<Vec<Read>, CliError> {
    let (mut documents, kinds) = (Vec::new(), spec.delegated().kinds());
    for location in &spec.locations {
        let found = google.discover(&spec.project, location).await;
        // What the target delegates to nobody needs no explanation.
        let of_target = |(kind, _): &&(ResourceKind, TargetError)| kinds.contains(kind);
        if let Some((kind, error)) = found.failed.iter().find(of_target) {
            return Err(unread(format!("the {} of {location}", kind.collection()), error));
        }
        if let Some(region) = found.unreachable.first() {
            let what = format!("the resources of {}", table::one_line(region));
            return Err(CliError::Unread { what, problem: "Google could not reach the region".to_owned() });
        }
        documents.extend(found.items.into_iter().map(|item| item.document).filter(|one| kinds.contains(&one.kind())));
    }
    writeln!(io.err, "reading {} policies …", documents.len())?;
    let tasks: Vec<_> = documents.into_iter().map(|document| policy(google, store, document)).collect();
    let mut answers = stream::iter(tasks).buffer_unordered(PARALLEL);
    let mut policies = Vec::new();
    while let Some(answer) = answers.next().await {
        policies.push(answer?);
        if policies.len() % 100 == 0 {
            writeln!(io.err, "read {} policies", policies.len())?;
        }
    }
    policies.sort_by(|a, b| a.document.cmp(&b.document));
    Ok(policies)
}

async fn policy(google: &Target, store: &Store, document: DocumentKey) -> Result<Read, CliError> {
    let mut tries = 0;
    let live = loop {
        match google.read(&document).await {
            Ok(snapshot) => break snapshot.live,
            Err(TargetError { kind: ErrorKind::Throttled { retry_after, .. }, .. }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(retry_after.unwrap_or(PAUSE)).await;
            }
            Err(error) => return Err(unread(document.resource(), &error)),
        }
    };
    let rows = store.document_ledger(&document).await?.rows;
    let owned = rows.iter().filter(|row| row.state == GrantState::Owned);
    Ok(Read { managed: owned.flat_map(|row| row.spellings().collect::<Vec<_>>()).collect(), document, live })
}

fn unread(what: String, error: &TargetError) -> CliError {
    CliError::Unread { what, problem: table::one_line(&error.to_string()) }
}

/// One mapping for each group. `names`: those that other mappings of the namespace have.
fn mappings(explanation: &Explanation, args: &AdoptArgs, mut names: BTreeSet<String>) -> Vec<Value> {
    let mapping = |(group, roles): (&Explained, &BTreeMap<Role, BTreeSet<Named>>)| {
        let selector = match &group.external_id {
            Some(id) => json!({"externalId": id}),
            None => json!({"displayName": group.display_name}),
        };
        let plain = slug(&group.display_name);
        let name = if plain.is_empty() || !names.insert(plain.clone()) {
            let id = group.group.0.simple().to_string();
            let free = (8..=id.len()).filter_map(|len| {
                let parts = [plain.as_str(), id.get(..len)?];
                Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-"))
            });
            free.into_iter().find(|name| names.insert(name.clone())).unwrap_or(id)
        } else {
            plain
        };
        // Roles on the same resources are one entry.
        let mut entries: BTreeMap<Vec<String>, BTreeSet<&str>> = BTreeMap::new();
        for (role, named) in roles {
            let resources: Vec<String> =
                named.iter().map(|(kind, name)| format!("{}/{name}", kind.collection())).collect();
            for part in resources.chunks(RESOURCES) {
                entries.entry(part.to_vec()).or_default().insert(role.as_str());
            }
        }
        let grants: Vec<Value> = entries
            .into_iter()
            .map(|(resources, roles)| json!({"target": {"name": args.target}, "resources": resources, "roles": roles}))
            .collect();
        json!({
            "apiVersion": "rolecall.dev/v1alpha1",
            "kind": Kind::RoleMapping,
            "metadata": {"name": name, "namespace": args.namespace, "annotations": {ADOPT_ANNOTATION: "true"}},
            "spec": {
                "subjects": [{"identityProvider": group.provider.as_str(), "groups": [selector]}],
                "grants": grants,
            },
        })
    };
    explanation.groups.iter().map(mapping).collect()
}

/// The name as part of the name of an object: lower-case letters, digits and `-`, at most 40 of them.
fn slug(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(40).collect();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The share that is explained, and what is not, without names of people.
fn summary(explanation: &Explanation, policies: usize, target: &str) -> String {
    let Explanation { groups, grants, explained, unexplained } = explanation;
    let percent = if *grants == 0 { 100 } else { explained * 100 / grants };
    let mut text = format!(
        "{} explain {explained} of {grants} grants ({percent} %) in {policies} policies of {target}; grants that rolecall made are not counted\n",
        if groups.len() == 1 { "1 mapping".to_owned() } else { format!("{} mappings", groups.len()) },
    );
    for (((kind, name), role), left) in unexplained {
        let parts = [
            (left.people, "to people of the identity providers"),
            (left.unknown, "to accounts that no identity provider has"),
            (left.others, "to service accounts, groups and others"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "not explained: {role} on {}/{name}: {}", kind.collection(), parts.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_become_names_of_objects() {
        assert_eq!(slug("Team Checkout (EU)"), "team-checkout-eu");
        assert_eq!(slug("--Ops__Leads--"), "ops-leads");
        assert_eq!(slug("集計"), "");
        assert!(slug(&"x-".repeat(100)).len() <= 40);
    }
}
