//! Whether this database is trusted to be the right one, as recorded in the database itself.

use jiff::Timestamp;

use super::audit::{AuditDraft, COMMAND};
use super::lanes::{REQUEST, Ticket};
use super::sqlite::meta;
use super::{Store, StoreError};

/// Trust in a database for which there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing is recorded: an older version created the database, or it was never used.
    Unsaid,
    /// It was new then, and there was no checkpoint of another one.
    FirstStart(Timestamp),
    /// It was new, and policies had grants that looked like those of a former database: nothing is written until it is
    /// accepted.
    Doubted,
    /// A person accepted it.
    Accepted,
}

/// The key of this record.
const TRUST: &str = "trust";
const MODE: &str = "mode";

const DOUBTED: &str = "doubted";
const ACCEPTED: &str = "accepted";

/// The key of the time at which grants last ended.
const ENDED_AT: &str = "ended_at";

impl Store {
    /// The last `notAfter` that has passed.
    pub(crate) async fn ended_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let Some(text) = self.read(|db| meta::get(db, ENDED_AT)).await? else { return Ok(None) };
        let damaged = |_| StoreError::Damaged { what: "meta", problem: format!("`{text}` is not a time") };
        text.parse().map(Some).map_err(damaged)
    }

    /// Records the last `notAfter` that has passed.
    pub(crate) async fn set_ended_at(&self, at: Timestamp) -> Result<(), StoreError> {
        let text = at.to_string();
        self.commit(Ticket::engine(REQUEST), move |tx| meta::set(tx, ENDED_AT, Some(&text))).await
    }

    /// The recorded trust in the database.
    pub(crate) async fn trust(&self) -> Result<Trust, StoreError> {
        let text = self.read(|db| meta::get(db, TRUST)).await?;
        let Some(text) = text else { return Ok(Trust::Unsaid) };
        match text.as_str() {
            DOUBTED => Ok(Trust::Doubted),
            ACCEPTED => Ok(Trust::Accepted),
            since => since.parse().map(Trust::FirstStart).map_err(|_| StoreError::Damaged {
                what: "meta",
                problem: format!("`{since}` is not a known state of trust"),
            }),
        }
    }

    /// Records the trust in the database.
    pub(crate) async fn set_trust(&self, trust: Trust) -> Result<(), StoreError> {
        let text = match trust {
            Trust::Unsaid => None,
            Trust::FirstStart(since) => Some(since.to_string()),
            Trust::Doubted => Some(DOUBTED.to_owned()),
            Trust::Accepted => Some(ACCEPTED.to_owned()),
        };
        self.commit(Ticket::engine(REQUEST), move |tx| {
            if trust == Trust::Accepted {
                tx.audit(AuditDraft::configuration(tx.now, COMMAND, "store.accept", "store", None));
            }
            meta::set(tx, TRUST, text.as_deref())
        })
        .await
    }

    /// Records the mode of this process. Appends to the audit when it differs from that of the last one.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over.
    pub(crate) async fn record_mode(&self, mode: &'static str) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            let before = meta::get_in(tx, MODE)?;
            if before.as_deref() == Some(mode) {
                return Ok(());
            }
            meta::set(tx, MODE, Some(mode))?;
            if let Some(before) = before {
                let detail = serde_json::json!({"from": before, "to": mode}).to_string();
                let draft = AuditDraft::configuration(tx.now, COMMAND, "mode.change", mode, None);
                tx.audit(draft.with_detail(detail));
            }
            Ok(())
        })
        .await
    }

    /// True when the database has no grants. People may have been pushed into a new one before its first use.
    pub(crate) async fn is_new(&self) -> Result<bool, StoreError> {
        self.read(meta::has_no_grants).await
    }
}
