//! `rolecall preflight`: whether rolecall has the permissions that its targets need, and what grants them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::api::manifest::Object;
use crate::source::folder::{lint_files, read_paths};
use crate::target::{Places, Preflight, Target, TargetPreflight};

use super::config::{CredentialsKind, google_client, parse_base_url};
use super::status::{OutputFormat, print, read};
use super::table::{self, Row, Tone};
use super::{CliError, Exit, Io, lint};

mod grants;

use grants::{Grants, Member};

pub(super) const EXAMPLES: &str = "\
For whoever installs rolecall: every permission that the targets need is tested with testIamPermissions, also those for writing in
observe mode. Nothing is changed. What is missing is printed as commands for gcloud and as Terraform, which grant exactly that.

Examples:
  rolecall preflight                                what the running rolecall found at its last list of resources
  rolecall preflight access                         manifests, with the credentials of this shell, before anything runs
  rolecall preflight --target shop-dev --member serviceAccount:rolecall@shop-dev.iam.gserviceaccount.com
  rolecall preflight -o json | jq -r '.targets[].projects[].missing[]'

Exit status: 0 nothing is missing, 1 something is missing or could not be tested, 2 wrong command line, 3 rolecall not reachable.";

/// Flags of `rolecall preflight`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct PreflightArgs {
    /// Manifests, or folders of them, to test with the credentials of this shell; default: ask the running rolecall
    #[arg(value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,

    /// Only this `CloudRunTarget`
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,

    /// The account that rolecall runs as, for the printed commands: serviceAccount:EMAIL or principal://…
    #[arg(long, value_name = "MEMBER")]
    pub(crate) member: Option<String>,

    /// Output format; default: a table and commands
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<OutputFormat>,

    /// With FILES: one base URL for all Google APIs, such as an emulator's; default: Google's own hosts
    #[arg(long, value_name = "URL", env = "ROLECALL_GOOGLE_ENDPOINT")]
    pub(crate) google_endpoint: Option<String>,

    /// With FILES: adc: Application Default Credentials; none: for an emulator
    #[arg(long, value_enum, env = "ROLECALL_GOOGLE_CREDENTIALS", default_value = "adc")]
    pub(crate) google_credentials: CredentialsKind,

    /// Address of the admin port of the running rolecall
    #[arg(long, value_name = "URL", env = "ROLECALL_ADMIN", default_value = "http://127.0.0.1:8081")]
    pub(crate) admin: String,
}

/// The tested targets, and what grants the permissions of the projects in which something is missing.
#[derive(Serialize)]
struct Tested<'a> {
    targets: &'a [TargetPreflight],
    grants: Vec<Grants>,
}

impl<'a> Tested<'a> {
    /// A project that several targets share gets one role for all of them, also those that are not shown: a role that
    /// is updated loses what is not named.
    fn of(targets: &'a [TargetPreflight], everything: &[TargetPreflight], member: Option<&Member>) -> Self {
        let shown = targets.iter().flat_map(|one| &one.projects).filter(|found| !found.is_complete());
        let lacking: BTreeSet<&str> = shown.map(|found| found.project.as_str()).collect();
        let grants = |project: &str| {
            let all = everything.iter().flat_map(|one| &one.projects).filter(|found| found.project == project);
            let needed = all.flat_map(|found| &found.needed).map(String::as_str).collect();
            Grants::of(project, &needed, member)
        };
        Self { targets, grants: lacking.into_iter().map(grants).collect() }
    }
}

/// Runs `rolecall preflight`.
pub(super) async fn run(args: &PreflightArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let member = args.member.as_deref().map(str::parse::<Member>).transpose()?;
    let mut all = if args.files.is_empty() {
        of_running(args).await?
    } else {
        match of_files(args, io).await? {
            Some(found) => found,
            None => return Ok(Exit::No),
        }
    };
    let everything = all.clone();
    if let Some(name) = &args.target {
        all.retain(|one| one.target == *name);
        if all.is_empty() {
            let kind = crate::model::Kind::CloudRunTarget.to_string();
            return Err(CliError::NotFound { kind, name: name.clone(), admin: args.admin.clone() });
        }
    }
    let tested = Tested::of(&all, &everything, member.as_ref());
    match args.output {
        Some(OutputFormat::Json | OutputFormat::Yaml) => print(&tested, args.output, io)?,
        None | Some(OutputFormat::Wide) => io.out.write_all(page(&tested, member.is_none()).as_bytes())?,
    }
    let done = tested.grants.is_empty() && all.iter().all(|one| !one.projects.is_empty());
    Ok(if done { Exit::Done } else { Exit::No })
}

/// What the running rolecall found.
async fn of_running(args: &PreflightArgs) -> Result<Vec<TargetPreflight>, CliError> {
    let admin = parse_base_url("--admin", &args.admin)?;
    let url = format!("{}/preflight", admin.as_str().trim_end_matches('/'));
    let strange = |problem: String| CliError::AdminStrange { url: url.clone(), problem };
    let Some(body) = read(&url).await? else { return Err(strange("it has no preflight".to_owned())) };
    serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))
}

/// Tests the targets of manifests. None: a manifest is wrong, which is reported.
async fn of_files(args: &PreflightArgs, io: &mut Io<'_>) -> Result<Option<Vec<TargetPreflight>>, CliError> {
    let endpoint = args.google_endpoint.as_deref().map(|text| parse_base_url("--google-endpoint", text)).transpose()?;
    let target = Target::Google(google_client::<CliError>(endpoint.as_ref(), args.google_credentials)?);
    let files = read_paths(&args.files);
    let report = lint_files(&files);
    if report.has_errors() {
        lint::write_text(&report, &mut Io { out: io.err, err: &mut std::io::sink() })?;
        return Ok(None);
    }
    let mut all = Vec::new();
    for document in files.values().flatten() {
        let Ok(Object::CloudRunTarget(object)) = &document.result else { continue };
        let name = object.metadata.name.clone().unwrap_or_default();
        let (spec, delegated) = (&object.spec, object.spec.delegated());
        let (mut documents, mut complete) = (Vec::new(), delegated.kinds());
        for location in &spec.locations {
            let found = target.discover(&spec.project, location).await;
            documents.extend(found.items.into_iter().map(|item| item.document));
            complete
                .retain(|kind| found.unreachable.is_empty() && found.failed.iter().all(|(failed, _)| failed != kind));
        }
        documents.retain(|document| delegated.matches(document.kind(), document.name()));
        let places = Places { documents: &documents, complete: &complete };
        let found = target.preflight(&spec.project, &delegated.kinds(), places).await;
        all.push(TargetPreflight { target: name, projects: vec![found] });
    }
    Ok(Some(all))
}

/// The table, and the commands for every project in which something is missing.
fn page(tested: &Tested<'_>, placeholder: bool) -> String {
    let Tested { targets, grants } = tested;
    let rows: Vec<Row> = targets.iter().flat_map(rows).collect();
    if rows.is_empty() {
        return "No CloudRunTarget needs a permission: none of them delegates anything.\n".to_owned();
    }
    let mut parts = vec![table::render(&["TARGET", "PROJECT", "PERMISSION", "HELD"], &rows)];
    let problems = targets.iter().flat_map(|one| &one.projects).filter_map(|project| {
        let problem = project.problem.as_ref()?;
        Some(format!("Not all could be tested in {}: {}\n", project.project, table::one_line(problem)))
    });
    parts.extend(problems);
    parts.extend(grants.iter().map(Grants::page));
    if placeholder && !grants.is_empty() {
        parts.push(format!("{} is the account that rolecall runs as: give it with --member.\n", grants::PLACEHOLDER));
    }
    parts.join("\n")
}

fn rows(found: &TargetPreflight) -> Vec<Row> {
    let row = |project: &str, permission: &str, held: &str, tone| Row {
        tone,
        cells: [&found.target, project, permission, held].map(str::to_owned).to_vec(),
    };
    let of = |project: &Preflight| {
        let one = |permission: &String| {
            let (held, tone) = if project.missing.contains(permission) {
                ("no", Tone::Bad)
            } else if project.untested.contains(permission) {
                ("not tested", Tone::Caution)
            } else {
                ("yes", Tone::Plain)
            };
            row(&project.project, permission, held, tone)
        };
        project.needed.iter().map(one).collect::<Vec<_>>()
    };
    if found.projects.is_empty() {
        return vec![row("-", "-", "not tested yet", Tone::Caution)];
    }
    found.projects.iter().flat_map(of).collect()
}
