//! `rolecall doctor`: what the requests of an identity provider look like from here, and what to change there.

use clap::Args;
use jiff::Timestamp;

use crate::api::condition::kind;
use crate::api::{FindingStatus, IdentityProviderStatus, TokenStatus};
use crate::model::{Clock, Kind};
use crate::scim_server::Capture;
use crate::status::Status;

use super::status::{OutputFormat, conditions, fetch, print, read};
use super::table::{self, Row, Tone};
use super::{CliError, Exit, Io, config::parse_base_url};

pub(super) const EXAMPLES: &str = "\
For whoever connects an identity provider: what its requests get wrong, with the next step for each. Findings are about the form
of requests; they hold no names of people and no tokens.

Examples:
  rolecall doctor okta
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall doctor okta
  rolecall doctor okta -o json | jq '.findings[].code'
  rolecall doctor okta --capture > okta.json        the last requests themselves, while `spec.scim.captureUntil` says so
  rolecall replay okta.json

Exit status: 0 nothing to mend, 1 there are findings, or no such IdentityProvider, 2 wrong command line, 3 rolecall not reachable.";

/// The next step where the findings do not suffice.
const NOT_CAPTURED: &str = "To see the requests themselves, without names of people, set `spec.scim.captureUntil` to a time within 24 hours, let the \
    IdP try again, and run `rolecall doctor {IDP} --capture`.\n";
const CAPTURED: &str = "Requests are being captured: `rolecall doctor {IDP} --capture > {IDP}.json` prints them, and `rolecall replay {IDP}.json` tries \
    them.\n";

/// Flags of `rolecall doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DoctorArgs {
    /// Name of the identity provider
    #[arg(value_name = "IDP")]
    pub(crate) provider: String,

    /// Output format; default: tables
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<OutputFormat>,

    /// Print the captured requests as JSON instead, for `rolecall replay`
    ///
    /// Requests are kept until the time in `spec.scim.captureUntil` of the `IdentityProvider`, without names and addresses of
    /// people.
    #[arg(long, conflicts_with = "output")]
    pub(crate) capture: bool,

    /// Address of the admin port of the running rolecall
    #[arg(long, value_name = "URL", env = "ROLECALL_ADMIN", default_value = "http://127.0.0.1:8081")]
    pub(crate) admin: String,
}

/// Runs `rolecall doctor`.
pub(super) async fn run(args: &DoctorArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let admin = parse_base_url("--admin", &args.admin)?;
    let base = admin.as_str().trim_end_matches('/').to_owned();
    let name = args.provider.rsplit('/').next().unwrap_or_default();
    if args.capture {
        return captured(name, &base, io).await;
    }
    let found = fetch(&format!("{base}/status")).await?.items.into_iter().find_map(|item| match item.status {
        Status::IdentityProvider(status) if item.metadata.name == name => Some(status),
        _ => None,
    });
    let Some(status) = found else {
        let kind = Kind::IdentityProvider.to_string();
        return Err(CliError::NotFound { kind, name: name.to_owned(), admin: base });
    };
    match args.output {
        Some(OutputFormat::Json | OutputFormat::Yaml) => print(&*status, args.output, io)?,
        None | Some(OutputFormat::Wide) => io.out.write_all(page(name, &status, clock.now()).as_bytes())?,
    }
    Ok(if is_well(&status) { Exit::Done } else { Exit::No })
}

/// Prints what was captured of a provider.
async fn captured(name: &str, admin: &str, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let url = format!("{admin}/captures/{name}");
    let Some(body) = read(&url).await? else {
        return Err(CliError::NotCaptured { provider: name.to_owned(), admin: admin.to_owned() });
    };
    let capture: Capture =
        serde_json::from_slice(&body).map_err(|error| CliError::AdminStrange { url, problem: error.to_string() })?;
    print(&capture, Some(OutputFormat::Json), io)?;
    if capture.requests.is_empty() {
        writeln!(io.err, "no request with an accepted token has arrived since the capture began")?;
    }
    Ok(Exit::Done)
}

/// True when there is nothing to mend.
fn is_well(status: &IdentityProviderStatus) -> bool {
    let good = [kind::READY, kind::TOKENS_VALID];
    let holds = |wanted: &&str| status.conditions.iter().any(|one| one.type_ == **wanted && one.status == "True");
    status.findings.is_empty() && good.iter().all(holds)
}

fn page(name: &str, status: &IdentityProviderStatus, now: Timestamp) -> String {
    let ago = |at: Timestamp| format!("{} ago", table::age(at, now));
    let seen = status.last_request_time.as_ref().map_or_else(|| "never".to_owned(), |at| ago(at.0));
    let head = [
        ("IdentityProvider", name.to_owned()),
        ("Base URL", status.endpoint.clone().unwrap_or_default()),
        ("Dialect", status.dialect.clone().unwrap_or_else(|| "not known yet".to_owned())),
        ("Last request", seen),
    ];
    let mut parts = vec![head.map(|(title, text)| format!("{title:<17} {text}\n")).concat()];
    parts.extend(tokens(&status.tokens, now));
    parts.extend(conditions(&status.conditions, now));
    if status.findings.is_empty() {
        parts.push("No findings.\n".to_owned());
    } else {
        let rows: Vec<Row> = status.findings.iter().map(|finding| finding_row(finding, now)).collect();
        let capturing = status.conditions.iter().any(|one| one.type_ == kind::CAPTURING && one.status == "True");
        let next = if capturing { CAPTURED } else { NOT_CAPTURED };
        parts.push(table::render(&["FINDING", "WHERE", "TIMES", "LAST", "NEXT STEP"], &rows));
        parts.push(next.replace("{IDP}", name));
    }
    parts.join("\n")
}

/// The tokens of a provider, each with its end and its last use.
pub(super) fn tokens(tokens: &[TokenStatus], now: Timestamp) -> Option<String> {
    let rows: Vec<Row> = tokens.iter().map(|token| token_row(token, now)).collect();
    (!rows.is_empty()).then(|| table::render(&["TOKEN", "ENDS", "LAST USED", "PROBLEM"], &rows))
}

fn token_row(token: &TokenStatus, now: Timestamp) -> Row {
    let tone = if token.reason.is_some() { Tone::Bad } else { Tone::Plain };
    let ends = token.not_after.as_ref().map_or_else(|| "never".to_owned(), |at| at.0.to_string());
    let used =
        token.last_used.as_ref().map_or_else(|| "never".to_owned(), |at| format!("{} ago", table::age(at.0, now)));
    Row { tone, cells: vec![token.name.clone(), ends, used, token.reason.clone().unwrap_or_else(|| "-".to_owned())] }
}

fn finding_row(finding: &FindingStatus, now: Timestamp) -> Row {
    let last = finding.last_seen.as_ref().map_or_else(|| "-".to_owned(), |at| table::age(at.0, now));
    let place = if finding.pointer.is_empty() { "-".to_owned() } else { table::one_line(&finding.pointer) };
    let hint = table::one_line(&finding.hint);
    Row { tone: Tone::Caution, cells: vec![finding.code.clone(), place, finding.count.to_string(), last, hint] }
}
