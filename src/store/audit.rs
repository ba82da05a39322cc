//! The audit log: rows chained by hash, with the names of people in a table of their own.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::encoding::{json, nanos};
use super::sqlite::audit;
use super::{AuditRow, Origin, Store, StoreError};
use crate::model::{
    AuditClaim, AuditEntry, AuditOutcome, ConditionHash, DocumentKey, GrantKey, MemberKey, ProviderName, Role, Seq,
};

/// Replacement of a member whose name was erased.
const ERASED: &str = "erased";

/// An audit row before it has its position in the chain.
pub(super) struct AuditDraft {
    entry: AuditEntry,
    name: Option<String>,
    detail: Option<String>,
}

impl AuditDraft {
    /// A row of the engine. The member's name is moved to the table of names.
    pub(super) fn of(entry: AuditEntry) -> Self {
        let name = entry.grant.as_ref().map(|grant| grant.member.as_str().to_owned());
        let detail = (!entry.claims.is_empty()).then(|| serde_json::json!({"claims": entry.claims}).to_string());
        Self { entry, name, detail }
    }

    /// A change of the directory that was accepted from an IdP.
    pub(super) fn directory(
        at: Timestamp,
        provider: &ProviderName,
        origin: &Origin,
        action: &str,
        subject: &str,
        cause_seqs: Vec<Seq>,
    ) -> Self {
        let mut draft = Self::configuration(at, &origin.actor(provider), action, subject, None);
        draft.entry.request_id.clone_from(&origin.request_id);
        draft.entry.cause_seqs = cause_seqs;
        draft
    }

    /// A change of the configuration, or a decision of a person. `seq`: position of the version of a spec that it
    /// created, if any.
    pub(super) fn configuration(at: Timestamp, actor: &str, action: &str, subject: &str, seq: Option<Seq>) -> Self {
        let entry = AuditEntry {
            at,
            actor: actor.to_owned(),
            request_id: None,
            cause_seqs: seq.into_iter().collect(),
            document: None,
            resource_uid: None,
            action: action.to_owned(),
            grant: None,
            subject: Some(subject.to_owned()),
            claims: vec![],
            plan_hash: None,
            revision_before: None,
            revision_after: None,
            outcome: AuditOutcome::Acknowledged,
            reason: None,
        };
        Self { entry, name: None, detail: None }
    }

    /// Adds the current name of the subject.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Adds counts, as JSON.
    pub(super) fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The row at a position of the chain, after a row with the hash `previous`.
    pub(super) fn chained(self, seq: i64, previous: &str) -> Result<ChainedRow, StoreError> {
        let Self { entry, name, detail } = self;
        let grant = entry.grant.as_ref();
        let texts = [
            Some(entry.actor),
            entry.request_id,
            Some(json(&entry.cause_seqs)?),
            entry.document.as_ref().map(ToString::to_string),
            entry.resource_uid,
            Some(entry.action),
            grant.map(|grant| grant.role.as_str().to_owned()),
            grant.map(|grant| grant.condition.as_str().to_owned()),
            entry.subject,
            entry.plan_hash,
            entry.revision_before,
            entry.revision_after,
            Some(entry.outcome.as_str().to_owned()),
            entry.reason,
            detail,
        ];
        let chained = Chained(seq, nanos(entry.at), texts);
        let hash = chained.hash(previous)?;
        Ok(ChainedRow { chained, hash, name })
    }
}

/// Number of text columns that the chain covers.
pub(super) const TEXTS: usize = 15;

/// The content that the chain covers: seq, time, and the text columns in their stored order.
#[derive(Serialize)]
pub(super) struct Chained(pub(super) i64, pub(super) i64, pub(super) [Option<String>; TEXTS]);

impl Chained {
    /// The hash of a row that follows one with the hash `previous`.
    pub(super) fn hash(&self, previous: &str) -> Result<String, StoreError> {
        Ok(sha256(&[previous, &json(self)?]))
    }

    /// The subject, to which the name belongs.
    pub(super) fn subject(&self) -> &str {
        self.2[8].as_deref().unwrap_or_default()
    }
}

/// A row of the log as it is stored.
pub(super) struct ChainedRow {
    pub(super) chained: Chained,
    pub(super) hash: String,
    pub(super) name: Option<String>,
}

/// SHA-256 over the concatenated texts, as 64 hex digits.
pub(super) fn sha256(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
    }
    let digits = hash.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// The action of a prune. Its row records how far the audit was pruned.
pub(super) const PRUNE: &str = "store.prune";

/// The last pruned row, from which the chain is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Anchor {
    /// Position of the row; 0 when no row was ever pruned.
    pub(super) seq: i64,
    pub(super) hash: String,
}

/// Extent of a verification of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditChain {
    /// The first existing row; those before were pruned.
    pub(crate) since: i64,
    /// Number of rows.
    pub(crate) rows: u64,
    /// The hash of the last row, or of the last pruned row; empty in an empty log.
    pub(crate) hash: String,
}

/// The actor of decisions made on the command line.
pub(super) const COMMAND: &str = "command";

/// The claims in a row. Rows of other actions and of older versions have none.
fn claims_of(detail: &str) -> Vec<AuditClaim> {
    #[derive(Deserialize)]
    struct Detail {
        claims: Vec<AuditClaim>,
    }
    serde_json::from_str(detail).map(|detail: Detail| detail.claims).unwrap_or_default()
}

fn damaged(problem: &impl ToString) -> StoreError {
    StoreError::Damaged { what: "audit", problem: problem.to_string() }
}

impl ChainedRow {
    fn into_row(self) -> Result<AuditRow, StoreError> {
        let Self { chained: Chained(seq, at, texts), hash, name } = self;
        let [
            actor,
            request_id,
            cause_seqs,
            document,
            resource_uid,
            action,
            role,
            condition,
            subject,
            plan_hash,
            revision_before,
            revision_after,
            outcome,
            reason,
            detail,
        ] = texts;
        let required = |text: Option<String>| text.ok_or_else(|| damaged(&"a column is empty"));
        let outcome = required(outcome)?;
        let claims = detail.as_deref().map(claims_of).unwrap_or_default();
        let role = role.map(Role::try_from).transpose().map_err(|error| damaged(&error))?;
        let grant = role.map(|role| GrantKey {
            role,
            condition: ConditionHash::from_text(condition.as_deref().unwrap_or_default()),
            member: MemberKey::of(name.as_deref().unwrap_or(ERASED)),
        });
        let entry = AuditEntry {
            at: Timestamp::from_nanosecond(i128::from(at)).map_err(|error| damaged(&error))?,
            actor: required(actor)?,
            request_id,
            cause_seqs: serde_json::from_str(&required(cause_seqs)?).map_err(|error| damaged(&error))?,
            document: document.map(DocumentKey::try_from).transpose().map_err(|error| damaged(&error))?,
            resource_uid,
            action: required(action)?,
            grant,
            subject,
            claims,
            plan_hash,
            revision_before,
            revision_after,
            outcome: AuditOutcome::from_word(&outcome)
                .ok_or_else(|| damaged(&format!("`{outcome}` is not a word of this column")))?,
            reason,
        };
        Ok(AuditRow { seq, entry, name, detail, hash })
    }
}

impl Store {
    /// The position of the last audit row; 0 when there is none.
    pub(crate) async fn highest_audit_seq(&self) -> Result<i64, StoreError> {
        self.read(audit::highest).await
    }

    /// Audit rows after a position (0 for the first), in order, at most `limit`.
    #[cfg(test)]
    pub(crate) async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let rows = self.read(move |db| audit::after(db, after, limit)).await?;
        rows.into_iter().map(ChainedRow::into_row).collect()
    }

    /// The last pruned row.
    pub(super) async fn audit_anchor(&self) -> Result<Anchor, StoreError> {
        let text = self.read(audit::anchor).await?;
        let Some(text) = text else { return Ok(Anchor::default()) };
        let (seq, hash) = serde_json::from_str(&text).map_err(|error| damaged(&error))?;
        Ok(Anchor { seq, hash })
    }

    /// Recomputes the hash chain from the first row that was not pruned; returns the number of rows. Anybody who can
    /// rewrite the whole log can also forge the chain, so the last hash should be kept elsewhere.
    ///
    /// # Errors
    /// [`StoreError::AuditBroken`], also when rows are missing that no recorded prune removed.
    pub(crate) async fn verify_audit_chain(&self) -> Result<u64, StoreError> {
        Ok(self.verify_audit().await?.rows)
    }

    /// Like [`Store::verify_audit_chain`], and also returns the row that it started from.
    ///
    /// # Errors
    /// Those of [`Store::verify_audit_chain`].
    pub(crate) async fn verify_audit(&self) -> Result<AuditChain, StoreError> {
        const PAGE: u32 = 1000;
        loop {
            let anchor = self.audit_anchor().await?;
            let mut previous = anchor.hash.clone();
            let mut verified = anchor.seq;
            let mut recorded = anchor.seq == 0;
            let broken = loop {
                let rows = self.read(move |db| audit::after(db, verified, PAGE)).await?;
                if rows.is_empty() {
                    break (!recorded).then(|| anchor.seq.saturating_add(1));
                }
                let mut broken = None;
                for row in rows {
                    if row.chained.0 != verified + 1 || row.chained.hash(&previous)? != row.hash {
                        broken = Some(verified + 1);
                        break;
                    }
                    verified = row.chained.0;
                    previous.clone_from(&row.hash);
                    recorded = recorded || records(&row.into_row()?, &anchor);
                }
                if broken.is_some() {
                    break broken;
                }
            };
            // Rows may be pruned while they are verified.
            match broken {
                Some(_) if self.audit_anchor().await? != anchor => {}
                Some(seq) => return Err(StoreError::AuditBroken { seq }),
                None => {
                    let rows = verified.saturating_sub(anchor.seq).unsigned_abs();
                    return Ok(AuditChain { since: anchor.seq.saturating_add(1), rows, hash: previous });
                }
            }
        }
    }
}

/// True for the row of a prune that went, or was to go, as far as the anchor.
fn records(row: &AuditRow, anchor: &Anchor) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detail {
        audit_through: i64,
        audit_hash: String,
    }
    let detail = row.detail.as_deref().filter(|_| row.entry.action == PRUNE);
    let detail = detail.and_then(|detail| serde_json::from_str::<Detail>(detail).ok());
    detail.is_some_and(|detail| {
        let same = detail.audit_through == anchor.seq && detail.audit_hash == anchor.hash;
        // An interrupted prune stopped at an earlier row.
        same || detail.audit_through > anchor.seq
    })
}
