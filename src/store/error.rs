//! Errors of the store.

use uuid::Uuid;

use super::Epoch;
use crate::model::{Reason, Seq};

/// Why a request to the store failed. Nothing of the request was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database URL is not supported by this build.
    #[error("`{url}` is not a database that can be used: write sqlite:PATH")]
    UnsupportedUrl {
        /// The given URL, without what stands before an `@`.
        url: String,
    },
    /// The file cannot be opened or created.
    #[error("cannot open the database `{path}`: {problem}")]
    CannotOpen {
        /// The file.
        path: String,
        /// The error of the database.
        problem: String,
    },
    /// The file is something else, or damaged.
    #[error("`{path}` is not a rolecall database, or it is damaged: {problem}; restore it from a backup")]
    NotADatabase {
        /// The file.
        path: String,
        /// The error of the database.
        problem: String,
    },
    /// A newer rolecall wrote the database.
    #[error(
        "the database `{path}` has schema {found}, this build knows up to {known}: run the newer build, or restore the backup from before the upgrade"
    )]
    SchemaNewer {
        /// The file.
        path: String,
        /// Schema of the file.
        found: i64,
        /// Newest schema of this build.
        known: i64,
    },
    /// A schema step of the database differs from that of this build.
    #[error("schema step {step} of the database `{path}` is not the one of this build: run the build that wrote it")]
    SchemaDiffers {
        /// The file.
        path: String,
        /// The step.
        step: i64,
    },
    /// Full disk, I/O error, lock timeout, or the store is shutting down. A later retry may succeed.
    #[error("the store cannot write or read now: {problem}")]
    Unavailable {
        /// The error of the database.
        problem: String,
    },
    /// Another resource of this provider has this value (RFC 7644 §3.12 `uniqueness`).
    #[error("another resource already has this `{attribute}`")]
    Taken {
        /// The SCIM attribute, or `id`.
        attribute: &'static str,
    },
    /// Another resource of this type has this value of a unique attribute.
    #[error("another resource of this type already has this `{attribute}`")]
    ValueTaken {
        /// The path of the attribute.
        attribute: String,
    },
    /// A file makes an attribute unique, but two stored resources of a type have the same value.
    #[error(
        "the resources {one} and {other} of `{provider}` have the same `{attribute}`, which the schema of `{kind}` says is \
         unique: write `uniqueness: none`, change one of them, and write it again"
    )]
    NotUnique {
        /// The provider.
        provider: String,
        /// The name of the type.
        kind: String,
        /// The path of the attribute.
        attribute: String,
        /// The id of the resource that was stored first.
        one: Uuid,
        /// The id of the other.
        other: Uuid,
    },
    /// A non-empty replacement of the members of a group contains no known id.
    #[error("none of the {given} members is known, so the group keeps the members it has; create the users first")]
    NoKnownMember {
        /// Number of given members.
        given: usize,
    },
    /// More ids would wait in a group than are kept.
    #[error(
        "more than {limit} members of the group would be unknown here; push the users before their group, in smaller parts"
    )]
    TooManyPending {
        /// Largest number in one group.
        limit: usize,
    },
    /// A member to remove is not a member, and its text is not an id of this server.
    #[error(
        "a member to remove is no id that this server issued, and the group has no such member; send the `id` of the user, or an `externalId` that nobody else has"
    )]
    NotAMember,
    /// The provider has reached its quota.
    #[error(
        "the identity provider has stored all that its quota of {limit} {what} allows; delete what is not needed, or ask for more"
    )]
    QuotaExceeded {
        /// `rows` or `bytes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The filter has no meaning for the type.
    #[error("{problem}")]
    UnsupportedFilter {
        /// The problem.
        problem: String,
    },
    /// A list has to read more resources than one request may.
    #[error(
        "no index answers this list, and there are more than {limit} resources to read for it; add a term with `eq` on \
         an indexed attribute, such as userName, externalId, emails, displayName of groups or members"
    )]
    ListTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A user is in more groups than one answer may list.
    #[error("a user in the answer is in more than {limit} groups; ask for the groups with `members eq \"ID\"` instead")]
    TooManyGroups {
        /// The limit.
        limit: usize,
    },
    /// A list takes more steps than one request may.
    #[error("{problem}")]
    ListTooCostly {
        /// The problem, with the limit.
        problem: String,
    },
    /// A stored value cannot be read.
    #[error("the stored `{what}` cannot be read: {problem}; restore the database from a backup")]
    Damaged {
        /// The table or column.
        what: &'static str,
        /// The problem.
        problem: String,
    },
    /// The audit log was modified: the hash of this row does not match its content and its predecessor.
    #[error(
        "the hash chain of the audit log is broken from row {seq} on: the row or the one before was changed or removed"
    )]
    AuditBroken {
        /// The first row that does not match.
        seq: i64,
    },
    /// A position older than the history, which started later or was pruned.
    #[error("the state at position {seq} is no longer known; the oldest position that can be read is {oldest}")]
    HistoryNotKept {
        /// The requested position.
        seq: Seq,
        /// The oldest position that can be rebuilt.
        oldest: Seq,
    },
    /// Another process took over the database, or this one never did; see [`Store::begin_epoch`].
    ///
    /// [`Store::begin_epoch`]: super::Store::begin_epoch
    #[error("{}", stale(*ours, *current))]
    StaleEpoch {
        /// The epoch that this handle began; none when it never began one.
        ours: Option<Epoch>,
        /// The epoch of the database.
        current: Epoch,
    },
    /// A defect of this program.
    #[error("the store failed on a fault of its own: {problem}")]
    Internal {
        /// The known details.
        problem: String,
    },
}

impl StoreError {
    /// The stable reason word.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::UnsupportedUrl { .. } => "UnsupportedDatabaseUrl",
            Self::CannotOpen { .. } => "DatabaseCannotOpen",
            Self::NotADatabase { .. } => "NotADatabase",
            Self::SchemaNewer { .. } => "SchemaNewer",
            Self::SchemaDiffers { .. } => "SchemaDiffers",
            Self::Unavailable { .. } => Reason::StoreUnavailable.word(),
            Self::Taken { .. } | Self::ValueTaken { .. } | Self::NotUnique { .. } => "Uniqueness",
            Self::NoKnownMember { .. } => "NoKnownMember",
            Self::TooManyPending { .. } => "TooManyPending",
            Self::NotAMember => "NotAMember",
            Self::QuotaExceeded { .. } => Reason::QuotaExceeded.word(),
            Self::UnsupportedFilter { .. } => "UnsupportedFilter",
            Self::ListTooLarge { .. } => "ListTooLarge",
            Self::TooManyGroups { .. } => "TooManyGroups",
            Self::ListTooCostly { .. } => "ListTooCostly",
            Self::Damaged { .. } => Reason::StoreDamaged.word(),
            Self::AuditBroken { .. } => "AuditBroken",
            Self::HistoryNotKept { .. } => "HistoryNotKept",
            Self::StaleEpoch { .. } => Reason::LeadershipLost.word(),
            Self::Internal { .. } => Reason::StoreFault.word(),
        }
    }
}

fn stale(ours: Option<Epoch>, current: Epoch) -> String {
    match ours {
        Some(ours) => format!(
            "another rolecall took over the database: it is at epoch `{current}`, and this process began epoch `{ours}`"
        ),
        None => format!("this process did not take over the database, which is at epoch `{current}`"),
    }
}
