//! `rolecall status`: the status of the resources of a running rolecall, as a table or as data.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use regex::{Captures, Regex};
use serde::Serialize;
use serde_json::Value;

use crate::api::condition::kind;
use crate::api::{self, CloudRunTargetStatus, IdentityProviderStatus, RoleMappingStatus};
use crate::model::{Clock, Kind, UserId};
use crate::status::{Item, List, Status};
use crate::store::Names;

use super::config::parse_base_url;
use super::table::{self, Row, Tone};
use super::{CliError, Exit, Io, doctor, store};

/// Largest accepted answer, in bytes: 100,000 mappings need about a tenth of it.
const MAX_ANSWER: usize = 1 << 30;
/// Timeout of the whole request.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const EXAMPLES: &str = "\
Examples:
  rolecall status                                   everything
  rolecall status rolemappings -n checkout          the mappings of one namespace
  rolecall status rolemapping/checkout-team         one of them, with its conditions
  rolecall status idp okta -o yaml                  one IdentityProvider, in full
  rolecall status -o yaml --show-principals --database sqlite:/var/lib/rolecall/rolecall.db
                                                    with the names of people, which are only in the store

Exit status: 0 shown, 1 no such object, 2 wrong command line, 3 rolecall not reachable.";

/// Flags of `rolecall status`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StatusArgs {
    /// Kind, or KIND/NAME; singular, plural and short names are accepted
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) resource: Option<String>,

    /// Name, when it is not part of the kind; NAMESPACE/NAME is accepted too
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Only mappings of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

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

/// How a status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
    /// A table with more columns.
    Wide,
}

/// The requested objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Selection {
    kind: Option<Kind>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Selection {
    fn from_args(args: &StatusArgs) -> Result<Self, CliError> {
        let Some(resource) = &args.resource else {
            return Ok(Self { kind: None, namespace: args.namespace.clone(), name: None });
        };
        let (kind, behind) = match resource.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (resource.as_str(), None),
        };
        let kind = kind_of(kind)?;
        let named = behind.or(args.name.as_deref());
        let (namespace, name) = match named.map(|name| name.split_once('/').unwrap_or(("", name))) {
            Some(("", name)) => (args.namespace.clone(), Some(name.to_owned())),
            Some((namespace, name)) => (Some(namespace.to_owned()), Some(name.to_owned())),
            None => (args.namespace.clone(), None),
        };
        Ok(Self { kind: Some(kind), namespace, name })
    }

    fn admits(&self, item: &Item) -> bool {
        self.kind.is_none_or(|wanted| wanted == item.kind)
            && self.name.as_ref().is_none_or(|name| *name == item.metadata.name)
            && (self.namespace.is_none()
                || item.metadata.namespace == self.namespace
                || (item.metadata.namespace.is_none() && self.kind.is_some()))
    }
}

/// Finds a kind by its name, singular, plural or short name, without regard to case, with or without the group after a
/// dot, as in the CRDs.
fn kind_of(word: &str) -> Result<Kind, CliError> {
    let lower = word.to_ascii_lowercase();
    let bare = lower.strip_suffix(&format!(".{}", api::GROUP)).unwrap_or(&lower);
    let mut known = Vec::new();
    for definition in api::crds()? {
        let names = definition.spec.names;
        let mut words = vec![names.plural.clone(), names.kind.to_ascii_lowercase()];
        words.extend(names.singular);
        words.extend(names.short_names.unwrap_or_default());
        if words.iter().any(|known| known == bare)
            && let Some(kind) = Kind::from_word(&names.kind)
        {
            return Ok(kind);
        }
        known.push(names.plural);
    }
    Err(CliError::UnknownKind { kind: table::one_line(word).chars().take(100).collect(), known: known.join(", ") })
}

/// Runs `rolecall status`.
pub(super) async fn run(args: &StatusArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let selection = Selection::from_args(args)?;
    let admin = parse_base_url("--admin", &args.admin)?;
    let base = admin.as_str().trim_end_matches('/').to_owned();
    let mut list = fetch(&format!("{base}/status")).await?;
    if let Some(database) = args.database.as_deref().filter(|_| args.show_principals) {
        let names = store::open_existing(database).await?.names().await?;
        list.items = list.items.into_iter().map(|item| with_names(item, &names)).collect::<Result<_, _>>()?;
    }
    show(list, &selection, args.output, &base, io, clock.now())
}

/// The object with the names of people instead of their pseudonyms, throughout its status.
fn with_names(item: Item, names: &Names) -> Result<Item, CliError> {
    let mut value = serde_json::to_value(item).map_err(std::io::Error::from)?;
    if let Some(status) = value.get_mut("status") {
        name_in(status, names);
    }
    Ok(serde_json::from_value(value).map_err(std::io::Error::from)?)
}

fn name_in(value: &mut Value, names: &Names) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(named) = named(text, names) {
                *text = named;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| name_in(item, names)),
        Value::Object(fields) => fields.values_mut().for_each(|field| name_in(field, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces `ID` and `DOMAIN#DIGEST` by names, wherever they occur in a text.
pub(super) fn named<'a>(text: &'a str, names: &Names) -> Cow<'a, str> {
    static STANDS_FOR_A_PERSON: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\w.-]*#[0-9a-f]{16}").ok());
    let Some(pattern) = &*STANDS_FOR_A_PERSON else { return Cow::Borrowed(text) };
    pattern.replace_all(text, |found: &Captures<'_>| {
        let shown = &found[0];
        let by_id = || names.by_id.get(&UserId(shown.parse().ok()?));
        names.by_digest.get(shown).or_else(by_id).cloned().unwrap_or_else(|| shown.to_owned())
    })
}

pub(super) async fn fetch(url: &str) -> Result<List, CliError> {
    let strange = |problem: String| CliError::AdminStrange { url: url.to_owned(), problem };
    let body = read(url).await?.ok_or_else(|| strange("it answers 404 Not Found".to_owned()))?;
    serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))
}

/// The answer of the admin port; none when there is no such page.
pub(super) async fn read(url: &str) -> Result<Option<Vec<u8>>, CliError> {
    // reqwest needs a provider even for plain HTTP; one that is already installed is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unreachable = |error: reqwest::Error| CliError::AdminUnreachable {
        url: url.to_owned(),
        problem: innermost(&error.without_url()),
    };
    let strange = |problem: String| CliError::AdminStrange { url: url.to_owned(), problem };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(unreachable)?;
    let mut response = client.get(url).send().await.map_err(unreachable)?;
    if response.status() == reqwest::StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if response.status() != reqwest::StatusCode::OK {
        return Err(strange(format!("it answers {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(strange(format!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The innermost cause, which is the specific one ("connection refused").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn show(
    list: List,
    selection: &Selection,
    output: Option<OutputFormat>,
    admin: &str,
    io: &mut Io<'_>,
    now: Timestamp,
) -> Result<Exit, CliError> {
    let items: Vec<Item> = list.items.into_iter().filter(|item| selection.admits(item)).collect();
    if let (Some(kind), Some(name), true) = (selection.kind, &selection.name, items.is_empty()) {
        let name = match &selection.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        };
        return Err(CliError::NotFound { kind: kind.to_string(), name, admin: admin.to_owned() });
    }
    match output {
        Some(OutputFormat::Json | OutputFormat::Yaml) => {
            // As in kubectl, one object by name is printed as that object, everything else as a list.
            let value = match <[Item; 1]>::try_from(items) {
                Ok([item]) if selection.name.is_some() => serde_json::to_value(item),
                Ok([item]) => serde_json::to_value(List::new(vec![item])),
                Err(items) => serde_json::to_value(List::new(items)),
            }
            .map_err(std::io::Error::from)?;
            print(&value, output, io)?;
        }
        None | Some(OutputFormat::Wide) => {
            if items.is_empty() {
                writeln!(io.err, "no resources found")?;
            }
            io.out.write_all(tables(&items, output.is_some(), selection, now).as_bytes())?;
        }
    }
    Ok(Exit::Done)
}

/// Prints a value as JSON, or as YAML.
pub(super) fn print(value: &impl Serialize, output: Option<OutputFormat>, io: &mut Io<'_>) -> Result<(), CliError> {
    let text = if output == Some(OutputFormat::Json) {
        serde_json::to_string_pretty(value).map_err(std::io::Error::from)? + "\n"
    } else {
        serde_saphyr::to_string(value).map_err(std::io::Error::other)?
    };
    Ok(io.out.write_all(text.as_bytes())?)
}

fn tables(items: &[Item], wide: bool, selection: &Selection, now: Timestamp) -> String {
    let kinds: Vec<Kind> =
        Kind::RESOURCES.into_iter().filter(|kind| items.iter().any(|item| item.kind == *kind)).collect();
    let mut parts = Vec::new();
    for kind in &kinds {
        let columns = columns(*kind);
        let columns: Vec<&Column> = columns.iter().filter(|column| wide || !column.wide).collect();
        let header: Vec<&str> = columns.iter().map(|column| column.title).collect();
        let rows: Vec<Row> = items
            .iter()
            .filter(|item| item.kind == *kind)
            .map(|item| Row {
                tone: tone(&item.status),
                cells: columns
                    .iter()
                    .map(|column| match (column.title, kinds.len()) {
                        // With several tables, names are printed in a form that this command accepts, as kubectl does.
                        ("NAME", 2..) => format!("{}/{}", kind.as_str().to_ascii_lowercase(), item.metadata.name),
                        _ => (column.cell)(item, now),
                    })
                    .collect(),
            })
            .collect();
        parts.push(table::render(&header, &rows));
    }
    if let ([item], Some(_)) = (items, &selection.name) {
        if let Status::IdentityProvider(status) = &item.status {
            parts.extend(doctor::tokens(&status.tokens, now));
        }
        parts.extend(conditions(item.status.conditions(), now));
    }
    parts.join("\n")
}

/// The conditions of one object, with their messages.
pub(super) fn conditions(conditions: &[Condition], now: Timestamp) -> Option<String> {
    let rows: Vec<Row> = conditions
        .iter()
        .map(|condition| Row {
            tone: condition_tone(condition),
            cells: vec![
                condition.type_.clone(),
                condition.status.clone(),
                condition.reason.clone(),
                table::age(condition.last_transition_time.0, now),
                condition.message.clone(),
            ],
        })
        .collect();
    (!rows.is_empty()).then(|| table::render(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"], &rows))
}

fn condition_tone(condition: &Condition) -> Tone {
    let good_when_true = matches!(
        condition.type_.as_str(),
        kind::ACCEPTED | kind::READY | kind::FRESH | kind::TOKENS_VALID | kind::REACHABLE | kind::PERMISSIONS_VALID
    );
    match (condition.status == "True", good_when_true) {
        (true, true) | (false, false) => Tone::Plain,
        (false, true) => Tone::Bad,
        (true, false) => Tone::Caution,
    }
}

fn tone(status: &Status) -> Tone {
    let ready = status.condition(kind::READY).is_none_or(|ready| ready.status == "True");
    if !ready {
        return Tone::Bad;
    }
    let all_plain = status.conditions().iter().all(|condition| condition_tone(condition) == Tone::Plain);
    if all_plain { Tone::Plain } else { Tone::Caution }
}

struct Column {
    title: &'static str,
    wide: bool,
    cell: fn(&Item, Timestamp) -> String,
}

const fn column(title: &'static str, cell: fn(&Item, Timestamp) -> String) -> Column {
    Column { title, wide: false, cell }
}

const fn wide(title: &'static str, cell: fn(&Item, Timestamp) -> String) -> Column {
    Column { title, wide: true, cell }
}

const NAME: Column = column("NAME", |item, _| item.metadata.name.clone());
const READY: Column = column("READY", |item, _| ready(item, |condition| condition.status.clone()));
const REASON: Column = column("REASON", |item, _| ready(item, |condition| condition.reason.clone()));
const AGE: Column = column("AGE", |item, now| {
    item.metadata.creation_timestamp.as_ref().map_or_else(unknown, |since| table::age(since.0, now))
});
const MESSAGE: Column = wide("MESSAGE", |item, _| ready(item, |condition| condition.message.clone()));

fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::RoleMapping => {
            const {
                &[
                    column("NAMESPACE", |item, _| item.metadata.namespace.clone().unwrap_or_default()),
                    NAME,
                    column("MODE", |item, _| spec_text(item, "/mode")),
                    column("GRANTS", |item, _| mapping(item, |status| Some(status.grants.as_ref()?.summary.clone()))),
                    column("HELD", |item, _| mapping(item, |status| Some(status.held.as_ref()?.people.to_string()))),
                    column("DRIFT", |item, _| mapping(item, |status| Some(status.drift.as_ref()?.missing.to_string()))),
                    column("LAG", |item, _| mapping(item, |status| status.lag.clone())),
                    READY,
                    REASON,
                    AGE,
                    wide("UNOWNED", |item, _| {
                        mapping(item, |status| Some(status.grants.as_ref()?.unowned.to_string()))
                    }),
                    wide("FOREIGN", |item, _| mapping(item, |status| Some(status.drift.as_ref()?.foreign.to_string()))),
                    wide("REVOKING", |item, _| {
                        mapping(item, |status| Some(status.grants.as_ref()?.revoking.to_string()))
                    }),
                    MESSAGE,
                ]
            }
        }
        Kind::CloudRunTarget => {
            const {
                &[
                    NAME,
                    column("PROJECT", |item, _| spec_text(item, "/project")),
                    column("SERVICES", |item, _| target(item, |status| Some(status.resources?.services.to_string()))),
                    column("IN-SYNC", |item, _| target(item, |status| Some(status.policies?.in_sync.to_string()))),
                    column("DRIFTED", |item, _| target(item, |status| Some(status.policies?.drifted.to_string()))),
                    READY,
                    REASON,
                    AGE,
                    wide("HELD", |item, _| target(item, |status| Some(status.policies?.held.to_string()))),
                    wide("FAILED", |item, _| target(item, |status| Some(status.policies?.failed.to_string()))),
                    MESSAGE,
                ]
            }
        }
        Kind::IdentityProvider => {
            const {
                &[
                    NAME,
                    column("STATE", |item, _| spec_text(item, "/state")),
                    column("DIALECT", |item, _| provider(item, |status| status.dialect.clone())),
                    column("USERS", |item, _| provider(item, |status| Some(status.users?.to_string()))),
                    column("GROUPS", |item, _| provider(item, |status| Some(status.groups?.to_string()))),
                    column("LAST-REQUEST", |item, now| {
                        provider(item, |status| Some(table::age(status.last_request_time.as_ref()?.0, now)))
                    }),
                    READY,
                    REASON,
                    AGE,
                    wide("ENDPOINT", |item, _| provider(item, |status| status.endpoint.clone())),
                    MESSAGE,
                ]
            }
        }
        // They have no status.
        Kind::Secret | Kind::Namespace => &[],
    }
}

fn unknown() -> String {
    "-".to_owned()
}

fn spec_text(item: &Item, pointer: &str) -> String {
    let value = item.spec.as_ref().and_then(|spec| spec.pointer(pointer)).and_then(Value::as_str);
    value.map_or_else(unknown, str::to_owned)
}

fn ready(item: &Item, text: impl FnOnce(&Condition) -> String) -> String {
    item.status.condition(kind::READY).map_or_else(unknown, text)
}

fn mapping(item: &Item, cell: impl FnOnce(&RoleMappingStatus) -> Option<String>) -> String {
    match &item.status {
        Status::RoleMapping(status) => cell(status).unwrap_or_else(unknown),
        _ => unknown(),
    }
}

fn target(item: &Item, cell: impl FnOnce(&CloudRunTargetStatus) -> Option<String>) -> String {
    match &item.status {
        Status::CloudRunTarget(status) => cell(status).unwrap_or_else(unknown),
        _ => unknown(),
    }
}

fn provider(item: &Item, cell: impl FnOnce(&IdentityProviderStatus) -> Option<String>) -> String {
    match &item.status {
        Status::IdentityProvider(status) => cell(status).unwrap_or_else(unknown),
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests;
