//! `rolecall replay`: captured requests of an identity provider, sent again to an empty directory in this process.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use uuid::Uuid;

use super::status::{OutputFormat, print};
use super::table::{self, Row, Tone};
use super::{CliError, Exit, Io};
use crate::scim_server::{Capture, Replay, Replayed, replay};

/// Largest file that is read; a capture of rolecall is much smaller.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Longest text of a request in the table.
const SHOWN: usize = 60;

pub(super) const EXAMPLES: &str = "\
For whoever looks for the cause of a refused request, or wants to know whether another version of rolecall answers in the same way.
The requests are those of `rolecall doctor IDP --capture`. They go to an empty directory in this process, which is removed afterwards:
nothing else is read or changed. What existed before the capture, as far as its answers show it, is created first. Requests that
need the schemas of `run --scim-schemas` are skipped.

Examples:
  rolecall doctor okta --capture > okta.json
  rolecall replay okta.json
  rolecall replay okta.json -o json | jq '.requests[] | select(.differences)'

Exit status: 0 each request is answered as it was captured or skipped, 1 one is not, 2 wrong command line or file, 3 it could not be done.";

/// Flags of `rolecall replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ReplayArgs {
    /// The captured requests; `-` reads them from the standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Output format; default: a table
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<OutputFormat>,
}

/// A folder of this process only, removed with its content when the value is dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("rolecall-replay-{}", Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left has no names of people.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `rolecall replay`.
pub(super) async fn run(args: &ReplayArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let text = read(&args.file).map_err(|source| CliError::Read { path: args.file.clone(), source })?;
    let no_capture = |problem: String| CliError::NoCapture { path: args.file.clone(), problem };
    if text.len() as u64 > MAX_FILE {
        return Err(no_capture(format!("it has more than {} MiB", MAX_FILE >> 20)));
    }
    let capture: Capture = serde_json::from_slice(&text).map_err(|error| no_capture(error.to_string()))?;
    // The endpoint has a client for OpenID Connect issuers, which needs a provider of cryptography; one that is there is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::create()?;
    let replayed = replay(&capture, &folder.0).await?;
    match args.output {
        Some(OutputFormat::Json | OutputFormat::Yaml) => print(&replayed, args.output, io)?,
        None | Some(OutputFormat::Wide) => io.out.write_all(page(&capture, &replayed).as_bytes())?,
    }
    Ok(if replayed.is_same() { Exit::Done } else { Exit::No })
}

/// The content of a file, and a byte more than is read of a larger one.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().take(MAX_FILE + 1).read_to_end(&mut content)?;
    } else {
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    }
    Ok(content)
}

fn page(capture: &Capture, replayed: &Replay) -> String {
    let mut head = vec![format!(
        "{} requests of {}, captured by rolecall {} and sent again to rolecall {}\n",
        capture.requests.len(),
        capture.identity_provider,
        table::one_line(&capture.rolecall_version),
        env!("CARGO_PKG_VERSION")
    )];
    if capture.dropped > 0 {
        head.push(format!("{} other requests were not kept\n", capture.dropped));
    }
    if replayed.existed_before > 0 {
        head.push(format!("{} resources existed before and were created first\n", replayed.existed_before));
    }
    let rows: Vec<Row> = replayed.requests.iter().map(row).collect();
    let table = table::render(&["REQUEST", "CAPTURED", "REPLAYED", "DIFFERENCE", "FINDINGS"], &rows);
    let end = match (replayed.is_same(), replayed.skipped()) {
        (true, 0) => "Each request is answered as it was captured.\n".to_owned(),
        (true, skipped) => {
            let (requests, are) = if skipped == 1 { ("request", "is") } else { ("requests", "are") };
            format!(
                "Each compared request is answered as it was captured; {skipped} skipped {requests} {are} not compared.\n"
            )
        }
        (false, _) => String::new(),
    };
    format!("{}\n{table}{end}", head.concat())
}

fn row(one: &Replayed) -> Row {
    let tone = match (one.answered == Some(one.captured), one.differences.is_empty()) {
        _ if one.skipped.is_some() => Tone::Caution,
        (true, true) => Tone::Plain,
        (true, false) => Tone::Caution,
        (false, _) => Tone::Bad,
    };
    let mut request: String = format!("{} {}", one.method, one.request).chars().take(SHOWN).collect();
    if request.chars().count() == SHOWN {
        request.push('…');
    }
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let findings: Vec<String> = one
        .findings
        .iter()
        .map(|finding| {
            if finding.pointer.is_empty() {
                finding.code.clone()
            } else {
                format!("{} at {}", finding.code, finding.pointer)
            }
        })
        .collect();
    let replayed = one.answered.map_or_else(String::new, |status| status.to_string());
    let cells = vec![
        request,
        one.captured.to_string(),
        or_dash(replayed),
        one.skipped.map_or_else(|| or_dash(one.differences.join("; ")), |reason| format!("skipped: {reason}")),
        or_dash(findings.join(", ")),
    ];
    Row { tone, cells }
}
