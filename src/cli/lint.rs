//! `rolecall lint`: the checks that `run` applies to its folder, on files and without starting anything.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::api::manifest::{LintFinding, LintReport, Severity};
use crate::source::folder::lint_paths;

use super::table::{BAD, CAUTION, HEADER, RESET, one_line};
use super::{CliError, Exit, Io, load_schemas};

pub(super) const EXAMPLES: &str = "\
Examples:
  rolecall lint access                              a folder, as `run --manifests access` reads it
  rolecall lint access/*.yaml
  rolecall lint --scim-schemas schemas.yaml         a file of SCIM schemas, as `run --scim-schemas` reads it
  rolecall lint -o json access | jq -r '.findings[] | \"\\(.file):\\(.line)\"'

Objects of other API groups are skipped, so that a folder may contain a kustomization too. References are checked among
the given files; a reference to anything else is a warning.
Exit status: 0 nothing would be refused (there may be warnings), 1 something would be refused, 2 wrong command line.";

/// Flags of `rolecall lint`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct LintArgs {
    /// Manifests, or folders of them: .yaml, .yml and .json, except names that begin with a dot
    #[arg(value_name = "FILES", required_unless_present = "scim_schemas")]
    pub(crate) files: Vec<PathBuf>,

    /// File of SCIM schemas and resource types to check too
    #[arg(long, value_name = "FILE")]
    pub(crate) scim_schemas: Option<PathBuf>,

    /// Output format; default: one finding per line, with file, line, column, field and message
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<LintFormat>,
}

/// How findings are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintFormat {
    /// One JSON object with all findings.
    Json,
}

/// Runs `rolecall lint`.
pub(super) fn run(args: &LintArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let schemas = load_schemas(args.scim_schemas.as_ref());
    if let Err(error) = &schemas {
        writeln!(io.err, "{error}")?;
    } else if args.files.is_empty() {
        writeln!(io.err, "the SCIM schemas have no problems")?;
    }
    if args.files.is_empty() {
        return Ok(if schemas.is_err() { Exit::No } else { Exit::Done });
    }
    let report = lint_paths(&args.files);
    match args.output {
        Some(LintFormat::Json) => {
            serde_json::to_writer_pretty(&mut *io.out, &report).map_err(std::io::Error::from)?;
            writeln!(io.out)?;
        }
        None => write_text(&report, io)?,
    }
    Ok(if report.has_errors() || schemas.is_err() { Exit::No } else { Exit::Done })
}

pub(super) fn write_text(report: &LintReport, io: &mut Io<'_>) -> std::io::Result<()> {
    for finding in &report.findings {
        writeln!(io.out, "{}", text(finding))?;
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let objects = plural(report.objects, "good object");
    match (errors, warnings) {
        (0, 0) => writeln!(io.err, "{objects}, no problems"),
        (_, 0) => writeln!(io.err, "{objects}, {}", plural(errors, "problem")),
        (0, _) => writeln!(io.err, "{objects}, no problems, {}", plural(warnings, "warning")),
        _ => writeln!(io.err, "{objects}, {}, {}", plural(errors, "problem"), plural(warnings, "warning")),
    }
}

/// `FILE:LINE:COLUMN FIELD: MESSAGE`
fn text(finding: &LintFinding) -> String {
    let problem = &finding.problem;
    let mut place = one_line(&problem.file);
    for number in [problem.line, problem.column].into_iter().flatten() {
        place.push(':');
        place.push_str(&number.to_string());
    }
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", one_line(&problem.field)) };
    let (tone, word) = match finding.severity {
        Severity::Error => (BAD, ""),
        Severity::Warning => (CAUTION, "warning: "),
    };
    format!("{HEADER}{place}{RESET} {field}{tone}{word}{}{RESET}", one_line(&problem.message))
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}
