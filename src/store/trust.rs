//! Whether this database is believed to be the one that belongs here, as it says of itself.

use jiff::Timestamp;
use sqlx::query;

use super::audit::{AuditDraft, COMMAND};
use super::sql::Columns;
use super::{Store, StoreError};

/// What a database that nothing else remembers is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing was written down: an older version made it, or it was never used.
    Unsaid,
    /// It was new then, and nothing remembered another one.
    FirstStart(Timestamp),
    /// It was new, and policies held what looked like the work of another one: nothing is written until it is accepted.
    Doubted,
    /// A person accepted it.
    Accepted,
}

const DOUBTED: &str = "doubted";
const ACCEPTED: &str = "accepted";

impl Store {
    /// What the database is taken for.
    pub async fn trust(&self) -> Result<Trust, StoreError> {
        let row = query("SELECT value FROM meta WHERE key = 'trust'").fetch_optional(self.readers()).await?;
        let Some(row) = row else { return Ok(Trust::Unsaid) };
        let text = Columns::of(&row, "meta").text()?;
        match text.as_str() {
            DOUBTED => Ok(Trust::Doubted),
            ACCEPTED => Ok(Trust::Accepted),
            since => since.parse().map(Trust::FirstStart).map_err(|_| StoreError::Damaged {
                what: "meta",
                problem: format!("`{since}` does not say what the database is taken for"),
            }),
        }
    }

    /// Writes down what the database is taken for.
    pub async fn set_trust(&self, trust: Trust) -> Result<(), StoreError> {
        let text = match trust {
            Trust::Unsaid => None,
            Trust::FirstStart(since) => Some(since.to_string()),
            Trust::Doubted => Some(DOUBTED.to_owned()),
            Trust::Accepted => Some(ACCEPTED.to_owned()),
        };
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    if trust == Trust::Accepted {
                        tx.audit(AuditDraft::configuration(tx.now, COMMAND, "store.accept", "store", None));
                    }
                    match text {
                        None => query("DELETE FROM meta WHERE key = 'trust'").execute(&mut tx.connection).await?,
                        Some(text) => {
                            query(
                                "INSERT INTO meta (key, value) VALUES ('trust', ?) \
                                 ON CONFLICT DO UPDATE SET value = excluded.value",
                            )
                            .bind(text)
                            .execute(&mut tx.connection)
                            .await?
                        }
                    };
                    Ok(())
                })
            })
            .await
    }

    /// Notes how far this process may go. Appends to the audit when it is not as far as the last one.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over.
    pub async fn record_mode(&self, mode: &'static str) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            Box::pin(async move {
                let row = query("SELECT value FROM meta WHERE key = 'mode'").fetch_optional(&mut tx.connection).await?;
                let before = row.map(|row| Columns::of(&row, "meta").text()).transpose()?;
                if before.as_deref() == Some(mode) {
                    return Ok(());
                }
                query(
                    "INSERT INTO meta (key, value) VALUES ('mode', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                )
                .bind(mode)
                .execute(&mut tx.connection)
                .await?;
                if let Some(before) = before {
                    let detail = serde_json::json!({"from": before, "to": mode}).to_string();
                    let draft = AuditDraft::configuration(tx.now, COMMAND, "mode.change", mode, None);
                    tx.audit(draft.with_detail(detail));
                }
                Ok(())
            })
        })
        .await
    }

    /// Whether the database knows of no grant. People may have been pushed into a new one before anybody looks.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        let row = query("SELECT EXISTS (SELECT 1 FROM grants)").fetch_one(self.readers()).await?;
        Ok(Columns::of(&row, "grants").integer()? == 0)
    }
}
