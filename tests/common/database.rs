//! The database of rolecall, read and changed as a file: its columns are part of what an upgrade has to keep.

use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row};
use serde_json::Value;

/// A role and a member, folded for comparison.
pub(crate) type Grant = (String, String);

/// A row of the audit.
#[derive(Debug, Clone)]
pub(crate) struct AuditRow {
    pub(crate) at: Timestamp,
    pub(crate) document: Option<String>,
    pub(crate) action: String,
    pub(crate) grant: Option<Grant>,
    pub(crate) etag_before: Option<String>,
    pub(crate) etag_after: Option<String>,
    pub(crate) outcome: String,
}

/// An intent of a row of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) action: String,
    pub(crate) etag_before: String,
    pub(crate) present_before: bool,
}

/// A row of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct LedgerRow {
    pub(crate) document: String,
    pub(crate) grant: Grant,
    pub(crate) state: String,
    pub(crate) intent: Option<Intent>,
    /// The members, folded, under which the policy may have the grant.
    pub(crate) stored_as: Vec<String>,
}

/// A refusal of Google that is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) probe_at: Timestamp,
    pub(crate) probes: i64,
}

/// Folds a member as Google compares it: addresses and domains do not depend on case.
pub(crate) fn folded(member: &str) -> String {
    let (deleted, rest) = member.strip_prefix("deleted:").map_or(("", member), |rest| ("deleted:", rest));
    match rest.split_once(':') {
        Some((kind @ ("user" | "group" | "serviceAccount" | "domain"), value)) => {
            format!("{deleted}{kind}:{}", value.to_ascii_lowercase())
        }
        _ => member.to_owned(),
    }
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).expect("a time")
}

/// The name of the resource of a document, such as `run:projects/p/locations/l/services/web`.
pub(crate) fn service_of(document: &str) -> &str {
    document.rsplit('/').next().expect("the last part of a path")
}

/// A database file.
pub(crate) struct Database(Connection);

impl Database {
    /// Opens the file, which may be in use.
    pub(crate) fn open(path: &Path) -> Self {
        let connection = Connection::open(path).expect("the database");
        connection.busy_timeout(super::PATIENCE).expect("a timeout");
        Self(connection)
    }

    fn all<T>(&self, sql: &str, row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut statement = self.0.prepare(sql).expect("a statement");
        let rows = statement.query_map([], row).expect("rows");
        rows.collect::<rusqlite::Result<_>>().expect("rows of known types")
    }

    /// Runs a statement, and returns the number of changed rows.
    pub(crate) fn change(&self, sql: &str, values: impl Params) -> usize {
        self.0.execute(sql, values).expect("a change")
    }

    /// The text in the first column of the only row.
    pub(crate) fn text(&self, sql: &str, values: impl Params) -> String {
        self.0.query_row(sql, values, |row| row.get(0)).expect("one row")
    }

    /// All rows of the audit, in order.
    pub(crate) fn audit(&self) -> Vec<AuditRow> {
        let sql = "SELECT a.at, a.document, a.action, a.role, p.name, a.etag_before, a.etag_after, a.outcome \
            FROM audit a LEFT JOIN people p ON p.id = a.person ORDER BY a.seq";
        self.all(sql, |row| {
            let (role, member): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
            Ok(AuditRow {
                at: time(row.get(0)?),
                document: row.get(1)?,
                action: row.get(2)?,
                grant: role.map(|role| (role, folded(&member.unwrap_or_default()))),
                etag_before: row.get(5)?,
                etag_after: row.get(6)?,
                outcome: row.get(7)?,
            })
        })
    }

    /// All rows of the ledger.
    pub(crate) fn ledger(&self) -> Vec<LedgerRow> {
        let sql = "SELECT document, role, member_key, state, stored_as, intent_action, intent_etag_before, \
            intent_present_before FROM grants ORDER BY document, role, condition_hash, member_key";
        self.all(sql, |row| {
            let member: String = row.get(2)?;
            let stored: Option<String> = row.get(4)?;
            let stored: Vec<String> = stored.map_or_else(Vec::new, |json| serde_json::from_str(&json).expect("a list"));
            let stored_as = if stored.is_empty() { vec![member.clone()] } else { stored };
            let action: Option<String> = row.get(5)?;
            let intent = |action| {
                Ok::<_, rusqlite::Error>(Intent { action, etag_before: row.get(6)?, present_before: row.get(7)? })
            };
            Ok(LedgerRow {
                document: row.get(0)?,
                grant: (row.get(1)?, member),
                state: row.get(3)?,
                intent: action.map(intent).transpose()?,
                stored_as: stored_as.iter().map(|member| folded(member)).collect(),
            })
        })
    }

    /// Kind and content of the stored resources. None while another process makes the schema.
    pub(crate) fn specs(&self) -> Vec<(String, Value)> {
        let known = self.0.table_exists(None, "specs").expect("a schema");
        if !known {
            return Vec::new();
        }
        self.all("SELECT kind, json FROM specs ORDER BY kind", |row| {
            let json: String = row.get(1)?;
            Ok((row.get(0)?, serde_json::from_str(&json).expect("JSON")))
        })
    }

    /// All refusals.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        let sql = "SELECT probe_at, probes FROM refusals ORDER BY reach, member_key, role";
        self.all(sql, |row| Ok(Refusal { probe_at: time(row.get(0)?), probes: row.get(1)? }))
    }

    /// Makes the probes of all refusals due at this time.
    pub(crate) fn probe_at(&self, at: Timestamp) {
        let nanos = i64::try_from(at.as_nanosecond()).expect("a time of these years");
        self.change("UPDATE refusals SET probe_at = ?", [nanos]);
    }
}

/// Checks the hash chain of the audit with `rolecall store verify`, and returns its number of rows.
pub(crate) fn verified_rows(path: &Path) -> u64 {
    let url = format!("sqlite:{}", path.display());
    let output = Command::new(env!("CARGO_BIN_EXE_rolecall"))
        .args(["store", "verify", "-o", "json", "--database", &url])
        .output()
        .expect("run a verb");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the audit chain does not hold: {problem}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    found["rows"].as_u64().expect("a number")
}
