//! The audit log: rows chained by hash, with the names of people in a table of their own.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::sql::{Columns, json, nanos};
use super::{AuditRow, Origin, Store, StoreError};
use crate::model::{AuditClaim, AuditEntry, AuditOutcome, ConditionHash, GrantKey, MemberKey, ProviderName, Role, Seq};

/// What stands for a member whose name was erased.
const ERASED: &str = "erased";

/// An audit row before it has its place in the chain.
pub(super) struct AuditDraft {
    entry: AuditEntry,
    name: Option<String>,
    detail: Option<String>,
}

impl AuditDraft {
    /// A row of the engine. The member's name goes to the names.
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

    /// A change of the configuration, or a decision of a person. `seq`: the version of a spec that it made, if any.
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

    /// With the name that the subject has now.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// With counts, as JSON.
    pub(super) fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// What the chain covers: seq, time, and the text columns in the order in which they are stored.
#[derive(Serialize)]
struct Chained<'a>(i64, i64, [Option<&'a str>; 15]);

impl Chained<'_> {
    fn hash(&self, previous: &str) -> Result<String, StoreError> {
        Ok(sha256(&[previous, &json(self)?]))
    }
}

/// SHA-256 over texts, one after the other, as 64 hex digits.
pub(super) fn sha256(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
    }
    let digits = hash.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// The action of a prune. Its row tells how far the audit was pruned, so that removed rows are on record.
pub(super) const PRUNE: &str = "store.prune";

/// The last row that was pruned: the chain is verified from there on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Anchor {
    /// 0: no row was ever pruned.
    pub(super) seq: i64,
    pub(super) hash: String,
}

/// What a verification of the audit covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditChain {
    /// The first row that is there; those before were pruned.
    pub since: i64,
    /// How many rows there are.
    pub rows: u64,
    /// The hash of the last one, or of the last that was pruned; empty in an empty log.
    pub hash: String,
}

/// The actor of what was decided on the command line.
pub(super) const COMMAND: &str = "command";

/// Takes two parameters, both made by [`chain`].
pub(super) const APPEND: &str = "\
    INSERT INTO people (subject, name) SELECT DISTINCT value ->> 0, value ->> 1 FROM json_each(?) WHERE true \
        ON CONFLICT DO NOTHING; \
    INSERT INTO audit (seq, at, actor, request_id, cause_seqs, document, resource_uid, action, role, condition_hash, \
            subject, plan_hash, etag_before, etag_after, outcome, reason, detail, hash, person) \
        SELECT value ->> '$[0][0]', value ->> '$[0][1]', value ->> '$[0][2][0]', value ->> '$[0][2][1]', \
            value ->> '$[0][2][2]', value ->> '$[0][2][3]', value ->> '$[0][2][4]', value ->> '$[0][2][5]', \
            value ->> '$[0][2][6]', value ->> '$[0][2][7]', value ->> '$[0][2][8]', value ->> '$[0][2][9]', \
            value ->> '$[0][2][10]', value ->> '$[0][2][11]', value ->> '$[0][2][12]', value ->> '$[0][2][13]', \
            value ->> '$[0][2][14]', value ->> 1, \
            (SELECT id FROM people WHERE subject = coalesce(value ->> '$[0][2][8]', '') AND name = value ->> 2) \
        FROM json_each(?);";

/// Names and rows, as JSON, that continue the chain which ends with `seq` and `hash`.
pub(super) fn chain(seq: i64, hash: &str, drafts: &[AuditDraft]) -> Result<(String, String), StoreError> {
    let mut people = Vec::new();
    let mut rows = Vec::with_capacity(drafts.len());
    let mut previous = hash.to_owned();
    for (seq, draft) in (seq + 1..).zip(drafts) {
        let entry = &draft.entry;
        let cause_seqs = json(&entry.cause_seqs)?;
        let document = entry.document.as_ref().map(ToString::to_string);
        let chained = Chained(
            seq,
            nanos(entry.at),
            [
                Some(&entry.actor),
                entry.request_id.as_deref(),
                Some(&cause_seqs),
                document.as_deref(),
                entry.resource_uid.as_deref(),
                Some(&entry.action),
                entry.grant.as_ref().map(|grant| grant.role.as_str()),
                entry.grant.as_ref().map(|grant| grant.condition.as_str()),
                entry.subject.as_deref(),
                entry.plan_hash.as_deref(),
                entry.revision_before.as_deref(),
                entry.revision_after.as_deref(),
                Some(entry.outcome.as_str()),
                entry.reason.as_deref(),
                draft.detail.as_deref(),
            ],
        );
        previous = chained.hash(&previous)?;
        if let Some(name) = &draft.name {
            people.push((entry.subject.as_deref().unwrap_or_default(), name));
        }
        rows.push(json(&(&chained, &previous, &draft.name))?);
    }
    Ok((json(&people)?, format!("[{}]", rows.join(","))))
}

/// The columns that the chain covers, then the hash, then the name.
const READ: &str = "SELECT a.seq, a.at, a.actor, a.request_id, a.cause_seqs, a.document, a.resource_uid, a.action, \
        a.role, a.condition_hash, a.subject, a.plan_hash, a.etag_before, a.etag_after, a.outcome, a.reason, \
        a.detail, a.hash, p.name \
    FROM audit a LEFT JOIN people p ON p.id = a.person WHERE a.seq > ? ORDER BY a.seq LIMIT ?";

/// The claims that a row names. Those of other actions and of older versions name none.
fn claims_of(detail: &str) -> Vec<AuditClaim> {
    #[derive(Deserialize)]
    struct Detail {
        claims: Vec<AuditClaim>,
    }
    serde_json::from_str(detail).map(|detail: Detail| detail.claims).unwrap_or_default()
}

fn audit_row(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    let mut columns = Columns::of(row, "audit");
    let seq = columns.integer()?;
    let at = columns.time()?;
    let actor = columns.text()?;
    let request_id = columns.text_or_none()?;
    let cause_seqs = columns.json()?;
    let document = columns.parse_or_none()?;
    let resource_uid = columns.text_or_none()?;
    let action = columns.text()?;
    let role: Option<Role> = columns.parse_or_none()?;
    let condition = columns.text_or_none()?;
    let subject = columns.text_or_none()?;
    let plan_hash = columns.text_or_none()?;
    let revision_before = columns.text_or_none()?;
    let revision_after = columns.text_or_none()?;
    let outcome = columns.word(AuditOutcome::from_word)?;
    let reason = columns.text_or_none()?;
    let detail = columns.text_or_none()?;
    let hash = columns.text()?;
    let name = columns.text_or_none()?;
    let claims = detail.as_deref().map(claims_of).unwrap_or_default();
    let grant = role.map(|role| GrantKey {
        role,
        condition: ConditionHash::from_text(condition.as_deref().unwrap_or_default()),
        member: MemberKey::of(name.as_deref().unwrap_or(ERASED)),
    });
    let entry = AuditEntry {
        at,
        actor,
        request_id,
        cause_seqs,
        document,
        resource_uid,
        action,
        grant,
        subject,
        claims,
        plan_hash,
        revision_before,
        revision_after,
        outcome,
        reason,
    };
    Ok(AuditRow { seq, entry, name, detail, hash })
}

/// Position of a row, the hash that it should have, and the one that it has.
fn hashes(row: &SqliteRow, previous: &str) -> Result<(i64, String, String), StoreError> {
    let mut columns = Columns::of(row, "audit");
    let seq = columns.integer()?;
    let at = columns.integer()?;
    let mut texts: [Option<String>; 15] = Default::default();
    for text in &mut texts {
        *text = columns.text_or_none()?;
    }
    let expected = Chained(seq, at, texts.each_ref().map(Option::as_deref)).hash(previous)?;
    Ok((seq, expected, columns.text()?))
}

impl Store {
    /// The position of the last audit row; 0 when there is none.
    pub async fn highest_audit_seq(&self) -> Result<i64, StoreError> {
        let row = query("SELECT coalesce(max(seq), 0) FROM audit").fetch_one(self.readers()).await?;
        Columns::of(&row, "audit").integer()
    }

    /// Audit rows after a position (0 for the first), in order, at most `limit`.
    pub async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let rows = query(READ).bind(after).bind(limit).fetch_all(self.readers()).await?;
        rows.iter().map(audit_row).collect()
    }

    /// The last row that was pruned.
    pub(super) async fn audit_anchor(&self) -> Result<Anchor, StoreError> {
        let row = query("SELECT value FROM meta WHERE key = 'audit_anchor'").fetch_optional(self.readers()).await?;
        let Some(row) = row else { return Ok(Anchor::default()) };
        let (seq, hash) = Columns::of(&row, "meta").json()?;
        Ok(Anchor { seq, hash })
    }

    /// Recomputes the hash chain from the first row that was not pruned; answers how many rows there are. Whoever can rewrite
    /// the whole log can also forge the chain, so the last hash is worth keeping elsewhere.
    ///
    /// # Errors
    /// [`StoreError::AuditBroken`], also when rows are gone that no prune on record removed.
    pub async fn verify_audit_chain(&self) -> Result<u64, StoreError> {
        Ok(self.verify_audit().await?.rows)
    }

    /// As [`Store::verify_audit_chain`], with the row that it began with.
    ///
    /// # Errors
    /// As [`Store::verify_audit_chain`].
    pub async fn verify_audit(&self) -> Result<AuditChain, StoreError> {
        const PAGE: u32 = 1000;
        loop {
            let anchor = self.audit_anchor().await?;
            let mut previous = anchor.hash.clone();
            let mut verified = anchor.seq;
            let mut recorded = anchor.seq == 0;
            let broken = loop {
                let rows = query(READ).bind(verified).bind(PAGE).fetch_all(self.readers()).await?;
                if rows.is_empty() {
                    break (!recorded).then(|| anchor.seq.saturating_add(1));
                }
                let mut broken = None;
                for row in &rows {
                    let (seq, expected, stored) = hashes(row, &previous)?;
                    if seq != verified + 1 || expected != stored {
                        broken = Some(verified + 1);
                        break;
                    }
                    recorded = recorded || records(&audit_row(row)?, &anchor);
                    previous = stored;
                    verified = seq;
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
        // An interrupted prune came to a row before.
        same || detail.audit_through > anchor.seq
    })
}
