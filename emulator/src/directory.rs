//! Existing accounts and their spellings.

use std::collections::{BTreeMap, HashMap};

use crate::error::ApiError;
use crate::member::{self, Account, Member};

/// Known accounts by folded member (`user:bob@example.com`).
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// In strict mode, only known accounts may be members of a policy.
    pub(crate) strict: bool,
    pub(crate) accounts: BTreeMap<String, Entry>,
    /// Folded member → the spelling in answers of the API.
    pub(crate) canonical: HashMap<String, String>,
    /// Folded e-mail of an alias → primary address.
    pub(crate) aliases: HashMap<String, String>,
    /// Domains whose accounts may be members; `None`: all.
    pub(crate) allowed_domains: Option<Vec<String>>,
    /// Groups and their members, for `testIamPermissions`.
    pub(crate) memberships: HashMap<String, Vec<String>>,
}

/// A known account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// Microseconds since the epoch from which on it may be a member.
    pub(crate) exists_from: u64,
    /// The numeric id under which it was deleted.
    pub(crate) deleted_uid: Option<String>,
}

impl Directory {
    /// Checks that a member may be written now.
    pub(crate) fn check(&self, name: &str, now: u64) -> Result<(), ApiError> {
        let Ok(Member::Account(account, email)) = member::parse(name) else { return Ok(()) };
        if account == Account::Service && email.contains('[') {
            return Ok(());
        }
        let exists = match self.accounts.get(&member::fold(name)) {
            Some(entry) => entry.deleted_uid.is_none() && entry.exists_from <= now,
            None => !self.strict,
        };
        if exists { Ok(()) } else { Err(ApiError::invalid(format!("{} {email} does not exist.", account.noun()))) }
    }

    /// The first member outside the permitted domains.
    pub(crate) fn outsider<'a>(&self, mut members: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let allowed = self.allowed_domains.as_ref()?;
        let permitted = |domain: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(domain));
        members.find(|name| match member::parse(name) {
            Ok(Member::Special) => true,
            Ok(Member::Account(_, email)) => match email.rsplit_once('@') {
                Some((_, domain)) => !permitted(domain) && !domain.to_lowercase().ends_with(".gserviceaccount.com"),
                None => false,
            },
            Ok(Member::Domain(domain)) => !permitted(domain),
            _ => false,
        })
    }
}
