//! What the directory says about people and groups, reduced to what access depends on, and how it changes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ProviderName;

/// Position in the event log. Starts at 1, visible in commit order; 0 is "nothing yet".
pub type Seq = i64;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id_type! {
    /// The `id` this server issued to a user (RFC 7643 §3.1). Unique over all providers, never reused.
    UserId
}
id_type! {
    /// The `id` this server issued to a group. Unique over all providers, never reused.
    GroupId
}

/// One e-mail address of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailFact {
    /// The address as pushed.
    pub value: String,
    /// `type`, such as `work`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `primary`.
    #[serde(default)]
    pub primary: bool,
}

/// What access depends on in a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFacts {
    /// The id issued here.
    pub id: UserId,
    /// `active`; absent in a create means true (the resource that is stored says so).
    pub active: bool,
    /// `userName` as pushed.
    pub user_name: String,
    /// `externalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// `emails`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emails: Vec<EmailFact>,
}

impl UserFacts {
    /// The same with the e-mail addresses that a principal can be derived from, and no others.
    #[must_use]
    pub fn for_access(&self) -> Self {
        let work = |email: &EmailFact| email.kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("work"));
        let primary = self.emails.iter().position(|email| email.primary);
        let work = self.emails.iter().position(work);
        let chosen = |at: usize| Some(at) == primary || Some(at) == work;
        let emails = self.emails.iter().enumerate().filter(|(at, _)| chosen(*at)).map(|(_, email)| email.clone());
        Self {
            id: self.id,
            active: self.active,
            user_name: self.user_name.clone(),
            external_id: self.external_id.clone(),
            emails: emails.collect(),
        }
    }
}

/// What access depends on in a group, members aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupFacts {
    /// The id issued here.
    pub id: GroupId,
    /// `displayName` as pushed.
    pub display_name: String,
    /// `externalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// One change of a group's membership, as it is asked for. What it comes to is in the events
/// ([`DirectoryChange::Members`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// These become members; those that are already, stay.
    Add(Vec<Uuid>),
    /// These, and only these, cease to be members. Those that are none are passed over, unless what is given is another
    /// name of somebody, or no id at all.
    Remove(Vec<Uuid>),
    /// The members are exactly these, of whom one at least is to be known.
    Replace(Vec<Uuid>),
    /// Nobody is a member.
    Clear,
}

/// One change of the directory. A snapshot is a sequence of these too, so that loading a snapshot and replaying the
/// log run through the same code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum DirectoryChange {
    /// A user was created or changed; the facts as they are now.
    User(UserFacts),
    /// A user was deleted; all memberships of the user went with it.
    UserDeleted {
        /// Which.
        id: UserId,
    },
    /// A group was created or changed; the facts as they are now.
    Group(GroupFacts),
    /// A group was deleted over SCIM; its memberships went with it. In a snapshot: a tombstone.
    GroupDeleted {
        /// Which.
        id: GroupId,
    },
    /// Direct user members of a group changed. Chunked: a large change is several of these.
    Members {
        /// Which group.
        group: GroupId,
        /// Users that became members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<UserId>,
        /// Users that ceased to be members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<UserId>,
    },
}

/// A change as it stands in the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEvent {
    /// Position in the log.
    pub seq: Seq,
    /// Which tenant.
    pub provider: ProviderName,
    /// When it was accepted.
    pub at: Timestamp,
    /// What changed.
    pub change: DirectoryChange,
}
