//! The facts about people and groups that access depends on, and the changes of those facts.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ProviderName;

/// Position in the event log. Starts at 1 and becomes visible in commit order; 0 means "no event yet".
pub(crate) type Seq = i64;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub Uuid);

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
pub(crate) struct EmailFact {
    /// The address as pushed.
    pub(crate) value: String,
    /// `type`, such as `work`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// `primary`.
    #[serde(default)]
    pub(crate) primary: bool,
}

/// The facts about a user that access depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserFacts {
    /// The id issued by this server.
    pub(crate) id: UserId,
    /// `active`. Absent in a create request means true, and the stored resource says so.
    pub(crate) active: bool,
    /// `userName` as pushed.
    pub(crate) user_name: String,
    /// `externalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) external_id: Option<String>,
    /// `emails`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) emails: Vec<EmailFact>,
}

impl UserFacts {
    /// A copy that has only the e-mail addresses that a principal can be derived from.
    #[must_use]
    pub(crate) fn for_access(&self) -> Self {
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

/// The facts about a group that access depends on, except its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupFacts {
    /// The id issued by this server.
    pub(crate) id: GroupId,
    /// `displayName` as pushed.
    pub(crate) display_name: String,
    /// `externalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) external_id: Option<String>,
}

/// One requested change of a group's membership. The resulting changes are in the events
/// ([`DirectoryChange::Members`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// These become members; existing members stay.
    Add(Vec<Uuid>),
    /// Exactly these cease to be members. Ids of non-members are ignored, unless the given value is another name of a
    /// person or not an id at all.
    Remove(Vec<Uuid>),
    /// The members become exactly these; at least one of them must be known.
    Replace(Vec<Uuid>),
    /// All members are removed.
    Clear,
}

/// The changes of a group's members in one request, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberChanges {
    /// The changes.
    pub(crate) list: Vec<MemberChange>,
    /// The text that the client gave for each id that is not in the form of those that this server issues.
    pub(crate) texts: BTreeMap<Uuid, String>,
}

impl From<Vec<MemberChange>> for MemberChanges {
    fn from(list: Vec<MemberChange>) -> Self {
        Self { list, texts: BTreeMap::new() }
    }
}

/// One change of the directory. A snapshot is a sequence of these changes too, so that loading a snapshot and replaying
/// the log run through the same code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum DirectoryChange {
    /// A user was created or changed; carries the current facts.
    User(UserFacts),
    /// A user was deleted, together with all its memberships.
    UserDeleted {
        /// The deleted user.
        id: UserId,
    },
    /// A group was created or changed; carries the current facts.
    Group(GroupFacts),
    /// A group was deleted over SCIM, together with its memberships. In a snapshot: a tombstone.
    GroupDeleted {
        /// The deleted group.
        id: GroupId,
    },
    /// Direct user members of a group changed. A large change is split into several of these.
    Members {
        /// The changed group.
        group: GroupId,
        /// Users that became members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<UserId>,
        /// Users that ceased to be members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<UserId>,
    },
    /// Groups that are direct members of a group changed.
    Nested {
        /// The changed group.
        group: GroupId,
        /// Groups that became members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<GroupId>,
        /// Groups that ceased to be members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<GroupId>,
    },
}

/// A change as stored in the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryEvent {
    /// Position in the log.
    pub(crate) seq: Seq,
    /// The tenant.
    pub(crate) provider: ProviderName,
    /// Time at which the change was accepted.
    pub(crate) at: Timestamp,
    /// The change.
    pub(crate) change: DirectoryChange,
}
