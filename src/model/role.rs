//! IAM roles.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a role that rolecall can grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoleError {
    /// Neither `roles/NAME` nor a custom role of a project or organization.
    #[error("`{0}` is not a role: write roles/NAME, projects/ID/roles/NAME or organizations/NUMBER/roles/NAME")]
    NotARole(String),
    /// `roles/owner`, `roles/editor` or `roles/viewer`.
    #[error("`{0}` is a basic role; rolecall grants predefined and custom roles only")]
    BasicRole(String),
}

/// A predefined or custom role, never a glob, never a basic role.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Role(Arc<str>);

impl Role {
    /// Checks the form of a role name. Google role ids are letters, digits, `_` and `.`.
    ///
    /// # Errors
    /// [`RoleError`], which names the problem.
    pub(crate) fn new(text: &str) -> Result<Self, RoleError> {
        let shown = || text.chars().take(200).collect::<String>();
        if matches!(text, "roles/owner" | "roles/editor" | "roles/viewer") {
            return Err(RoleError::BasicRole(shown()));
        }
        let id = match text.split('/').collect::<Vec<_>>().as_slice() {
            ["roles", id] => *id,
            ["projects", project, "roles", id] if !project.is_empty() => *id,
            ["organizations", number, "roles", id]
                if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
            {
                *id
            }
            _ => return Err(RoleError::NotARole(shown())),
        };
        let well_formed = !id.is_empty()
            && text.len() <= 200
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if well_formed { Ok(Self(text.into())) } else { Err(RoleError::NotARole(shown())) }
    }

    /// The role as Google spells it.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl TryFrom<String> for Role {
    type Error = RoleError;
    fn try_from(text: String) -> Result<Self, RoleError> {
        Self::new(&text)
    }
}

impl From<Role> for String {
    fn from(role: Role) -> String {
        role.0.as_ref().to_owned()
    }
}
